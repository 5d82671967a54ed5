"""The whole search: a trained network, data and a promise in, the fastest network that keeps it out.

The calls in order, as a job process makes them, and `search_ranks` for everybody else:

    subject = Subject.prepare(model, arrays, config, architecture)      # search.subject
    subject.baseline                                                    # Baseline, .as_json()
    table = analyse(subject, config, report)                            # search.analysis
    found = run_search(subject, table, config, stored, record, checkpoint)
    confirmation = confirm(subject, table, config, found.candidates)    # search.confirmation
    document = evidence(subject, table, config, found, confirmation)    # JSON-able
    confirmation.model, confirmation.plan                               # what is to be exported
    markdown(document)                                                  # search.report, report.md

`report(fraction, sentence)` is told how far the analysis is. `stored` maps the key of a plan
(`plan_key`) to its Candidate from an earlier attempt: none of them is evaluated again. `record`
gets each new Evaluation (search.evaluation: key, point, plan, costs, measured, reason, seconds)
before the next one begins. `checkpoint` is called before each evaluation and may raise
`Cancelled`, which passes through. A table from an earlier job (`ChoiceTable.from_json`, kept under
`table_key`) replaces the call of `analyse`.
"""
