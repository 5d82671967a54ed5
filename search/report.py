"""The evidence of a job as a page for a person.

The evidence itself, made by `search.evidence`, is JSON and part of every manifest. Its words:

    verdict, sentence        what the job came to
    nearest_max_loss         where the budget was missed: one that the result keeps
    stopped_by               the limit that ended the search, or null
    budget, search           as they were ordered
    recovery                 as it was ordered, with the samples that candidates were trained on
                             and judged by, and whether these are training samples; or null
    objective                as ordered, with the device that `auto` came to and the weights that
                             latency, MACs and parameters count for
    circumstances            what the times hold for: device by name, threads, runtime,
                             allocator, versions
    not_simplified           why no network was simplified, batch norms folded say; or null
    splits                   number of images that calibrated, searched and confirmed
    dense                    metric, value (percent where counted), latency_ms, parameters, macs
    result                   loss, cost (what is minimised, over that of dense), latency_ms,
                             dense_latency_ms, speedup with its interval, layout, runtime,
                             parameters, macs; null where the dense network stays;
                             recovery: loss_before it, method, rate, epochs, seconds, whether the
                             job's limit cut it short, and before and after, what was minimised, on
                             the samples left out; or null
    program_difference,      of model.pt2 and model.onnx to the network, relative to the largest
    onnx_difference          output; each where the file is there
    layers                   of each layer, or weight of a recurrent one, that had a choice: name,
                             method and ranks (null: dense), modes of a weight or null,
                             predicted_error, times, parameters and MACs before and after, choices
    kept_dense               layer -> why it had none
    tested                   finalists in the order of their tests: plan, loss, passed
    front                    of the candidates and dense those that no other beats in loss and
                             cost on the search's images, by rising loss: plan, loss, within the
                             budget or not, cost, speedup, parameter_share, mac_share
    evaluations, failed      candidates that were evaluated, and those of them that failed
    search_seconds           that the search took, in its last attempt
    samples_saved            share of the search's images that early stops spared, likewise
    surrogate                rank correlation of predicted with measured loss and latency
    widths                   how many widths of the network were tried, of each channel group its
                             name, reader, channels and those kept, and kept_whole: layer -> why its
                             channels are in none; null where widths were not ordered
    limit                    speedup with the layers that have other forms for nothing, and the
                             share of their time that was saved
"""

from collections.abc import Iterator, Mapping
from typing import Any

from search.config import GRAPH_RUNTIMES
from search.wording import WORDS

# The runtimes by what a person calls them.
RUNTIMES = {
    "eager": "torch eager mode",
    "compile": "torch.compile",
    "cuda_graph": "a CUDA graph",
    "onnxruntime": "onnxruntime",
    "openvino": "OpenVINO",
}

VERDICTS = {
    "budget_met": "The promise is kept",
    "budget_missed": "The promise is not kept",
    "no_gain": "Nothing gained: the dense network stays",
}


def markdown(document: Mapping[str, Any]) -> str:
    """report.md: the promise and the verdict first, then the figures and what they hold for."""
    parts = (_promise, _comparison, _layers, _widths, _front, _method, _use)
    told = ("\n".join(part(document)) for part in parts)
    return "\n\n".join(text for text in told if text) + "\n"


def _promise(document: Mapping[str, Any]) -> Iterator[str]:
    budget = document["budget"]
    unit = "points" if budget["unit"] == "points" else "percent of the dense network's own value"
    sure = (
        ""
        if budget["confidence"] is None
        else f", with {100 * budget['confidence']:g} % confidence"
    )
    yield f"# {VERDICTS[document['verdict']]}"
    yield ""
    yield f"Promise: lose at most {budget['max_loss']:g} {unit} of {budget['metric']}{sure}."
    yield f"Minimised: {_minimised(document['objective'])}."
    yield ""
    yield document["sentence"]
    if document["stopped_by"] is not None:
        yield ""
        yield f"The search was ended by its limit `{document['stopped_by']}`; more may be possible."


def _minimised(objective: Mapping[str, Any]) -> str:
    parts = [f"{weight:g} of {name}" for name, weight in objective["weights"].items() if weight]
    noun = WORDS[objective["minimise"]].noun
    return noun if len(parts) == 1 else f"{noun}, {', '.join(parts)}"


def _comparison(document: Mapping[str, Any]) -> Iterator[str]:
    dense, result = document["dense"], document["result"]
    yield "## Before and after"
    yield ""
    yield "| | dense | result |"
    yield "|---|---|---|"
    if result is None:
        yield f"| latency, median | {_ms(dense['latency_ms'])} | the same network |"
        yield f"| parameters | {dense['parameters']:,} | {dense['parameters']:,} |"
        yield f"| multiply-adds | {dense['macs']:,} | {dense['macs']:,} |"
        return
    loss = result["loss"]
    upper = "" if loss["upper"] is None else f", at most {loss['upper']:.3g}"
    yield f"| loss of {loss['metric']} ({loss['unit']}) | 0 | {loss['value']:.3g}{upper} |"
    yield (
        f"| latency, median (10 % to 90 %) | {_ms(result['dense_latency_ms'])} "
        f"| {_ms(result['latency_ms'])} |"
    )
    yield (
        f"| speed-up (95 % interval) | 1 | {result['speedup']:.2f} "
        f"({result['speedup_low']:.2f} to {result['speedup_high']:.2f}) |"
    )
    noun = WORDS[document["objective"]["minimise"]].noun
    yield f"| minimised: {noun}, over that of dense | 1 | {result['cost']:.3f} |"
    for word, key in (("parameters", "parameters"), ("multiply-adds", "macs")):
        share = 100 * result[key] / dense[key] if dense[key] else 100.0
        yield f"| {word} | {dense[key]:,} | {result[key]:,} ({share:.1f} %) |"
    yield ""
    yield (
        f"The dense network has {document['dense']['metric']} {document['dense']['value']:.4g} on "
        f"the {document['dense']['samples']:,} images of the search; the loss is of "
        f"{loss['samples']:,} others: {loss['worse']:,} got worse, {loss['better']:,} better."
    )


def _layers(document: Mapping[str, Any]) -> Iterator[str]:
    yield "## Layers"
    yield ""
    yield "| layer | choice | predicted error | ms before | ms after | parameters | why dense |"
    yield "|---|---|---|---|---|---|---|"
    for row in document["layers"]:
        is_dense = row["method"] is None
        ranks = "" if is_dense else f" {'x'.join(map(str, row['ranks']))}"
        reason = f"none of its {row['choices']} choices served the promise" if is_dense else ""
        yield (
            f"| {row['name']} | {row['method'] or 'dense'}{ranks} | {row['predicted_error']:.3g} "
            f"| {row['dense_latency_ms']:.3f} | {row['latency_ms']:.3f} "
            f"| {row['parameters']:,} of {row['dense_parameters']:,} | {reason} |"
        )
    reasons: dict[str, list[str]] = {}
    for name, reason in document["kept_dense"].items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        yield f"| {', '.join(names)} | dense | | | | | {reason} |"
    yield ""
    yield (
        "Predicted error: squared error of the layer's output over its mean square, on the "
        "calibration images, before repair. Times are of the layer alone, those of a recurrent "
        "layer's weight its share of them."
    )


def _widths(document: Mapping[str, Any]) -> Iterator[str]:
    if (widths := document["widths"]) is None:
        return
    yield "## Widths"
    yield ""
    yield "| output channels of | before | after |"
    yield "|---|---|---|"
    for group in widths["groups"]:
        yield f"| {group['name']} | {group['channels']} | {group['kept']} |"
    yield ""
    yield (
        f"The network was tried at {widths['tried']} widths. Channels that went are made up for, "
        "in the layer that reads them, by sums of those that stayed, fit to calibration images."
    )
    if kept := widths["kept_whole"]:
        yield ""
        yield "In no group, and so kept whole:"
        yield ""
        yield from (f"- {name or 'the network'}: {reason}" for name, reason in kept.items())


def _front(document: Mapping[str, Any]) -> Iterator[str]:
    noun = WORDS[document["objective"]["minimise"]].noun
    yield "## What other budgets would have come to"
    yield ""
    yield f"| loss | within | {noun} | speed-up | parameters | multiply-adds |"
    yield "|---|---|---|---|---|---|"
    for row in document["front"]:
        yield (
            f"| {row['loss']:.3g} | {'yes' if row['within'] else 'no'} | {100 * row['cost']:.1f} % "
            f"| {row['speedup']:.2f} | {100 * row['parameter_share']:.1f} % "
            f"| {100 * row['mac_share']:.1f} % |"
        )
    yield ""
    yield (
        f"The candidates, dense among them, that no other beats in loss and {noun}, on the images "
        "that guided the search: none of these figures is confirmed. Shares are of dense."
    )


def _method(document: Mapping[str, Any]) -> Iterator[str]:
    splits, search = document["splits"], document["search"]
    yield "## How this was found"
    yield ""
    yield (
        f"Strategy `{search['strategy']}`: {document['evaluations']} networks evaluated in "
        f"{document['search_seconds']:.0f} s, {document['failed']} of them failed. "
        f"{splits['calibration']:,} images without labels calibrated the decompositions, "
        f"{splits['search']:,} guided the search, {splits['confirmation']:,} others confirmed it."
    )
    yield ""
    yield from _quality(document)
    yield (
        f"Finalists tested on the confirmation images: {len(document['tested'])}, in an order "
        "fixed beforehand, from the safest to the fastest, up to the first that failed; so the "
        "confidence holds without correction (fixed-sequence testing, Maurer, Hothorn and "
        "Lehmacher 1995). Dense and result were timed in turns, in random order."
    )
    if document["recovery"] is not None:
        yield ""
        yield from _recovery(document)
    if document["objective"]["fold_norms"]:
        yield (
            "In both, batch norms were folded into the layers before them."
            if document["not_simplified"] is None
            else f"Batch norms were folded in neither: {document['not_simplified']}."
        )


def _quality(document: Mapping[str, Any]) -> Iterator[str]:
    """How far the search could go, how well it was guided, and what stopping early spared."""
    limit, guide = document["limit"], document["surrogate"]
    if limit["achieved"] is not None:
        most = "any speed-up" if limit["speedup"] is None else f"{limit['speedup']:.2f} times"
        yield (
            f"With the layers that have other forms for nothing, {most} could be reached "
            f"(Amdahl); of the time that they take, {100 * limit['achieved']:.0f} % was saved."
        )
    told = [
        f"{guide[key]:.2f} for the {key}" for key in ("loss", "latency") if guide[key] is not None
    ]
    if told:
        yield (
            f"Rank correlation of predicted with measured over {guide['candidates']} candidates: "
            f"{', '.join(told)}."
        )
    yield f"Stopping early spared {100 * document['samples_saved']:.0f} % of the search's images."
    yield ""


def _recovery(document: Mapping[str, Any]) -> Iterator[str]:
    ordered, result = document["recovery"], document["result"]
    labels = "the labels and " if ordered["method"] == "finetune" else ""
    source = "training samples" if ordered["from_training"] else "calibration samples"
    yield (
        f"Every network was trained for {ordered['max_seconds']:g} s at most before its loss was "
        f"measured, on {labels}the dense network's answers to "
        f"{ordered['samples']:,} {source}; {ordered['left_out']:,} others were left out, and "
        "judged whether it was better before or after."
    )
    if told := _augmentation(ordered["augment"]):
        yield f"Each time a picture was learned from it was {told}."
    if result is not None and result["recovery"] is not None:
        found, loss = result["recovery"], result["loss"]
        lost = found["loss_before"]
        before = "cannot be computed" if lost is None else f"is {lost:.3g}"
        yield (
            f"Without that the loss of {loss['metric']} ({loss['unit']}) of the result {before}, "
            f"with it {loss['value']:.3g}: {found['epochs']:g} epochs in {found['seconds']:.0f} s."
        )
        if found["cut_short"]:
            yield "The limit of the job cut this training short: with more time it may lose less."


def _augmentation(augment: Mapping[str, Any]) -> str:
    moved, mirrored = augment["shift"], augment["flip"]
    told = [f"moved by up to {moved} pixels"] if moved else []
    return " and ".join(told + (["mirrored every second time"] if mirrored else []))


def _use(document: Mapping[str, Any]) -> Iterator[str]:
    found, objective = document["circumstances"], document["objective"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    yield "## How to use it"
    yield ""
    yield "```python"
    if found["runtime"] in GRAPH_RUNTIMES:
        yield from _graph_code(found["runtime"], found["threads"])
        yield "```"
        yield ""
        yield "The same in torch, which the speed-up does not hold for:"
        yield ""
        yield "```python"
    yield "import torch"
    yield "from load import keep_freed_memory, load  # the file beside this one; needs torch alone"
    yield ""
    yield "keep_freed_memory()  # or each call has its memory made anew: see the function"
    yield 'model = load(".")'
    if found["runtime"] == "compile":
        yield "model = torch.compile(model)"
    if document["result"] is not None and document["result"]["layout"] == "channels_last":
        yield "model = model.to(memory_format=torch.channels_last)  # the faster layout here,"
        yield "x = x.to(memory_format=torch.channels_last)  # for the input as well"
    if found["runtime"] == "cuda_graph":
        yield from _recording()
    yield "```"
    yield ""
    yield (
        f"The speed-up holds for {found['name']} ({found['device']}), batch {objective['batch']}, "
        f"{found['threads']} thread{'s' * (found['threads'] != 1)}, {found['dtype']}, "
        f"{RUNTIMES[found['runtime']]}, allocator: {found['allocator']} ({versions}). On another "
        "device, batch size or runtime measure again: `ranksearch verify` does, with and without "
        "the freed memory kept."
    )


def _recording() -> Iterator[str]:
    """How the loaded network is run as one graph of CUDA; x is a batch on the GPU."""
    yield "model = model.cuda()"
    yield "graph = torch.cuda.CUDAGraph()"
    yield "with torch.inference_mode():"
    yield "    model(x)  # chooses kernels"
    yield "    with torch.cuda.graph(graph):"
    yield "        y = model(x)"
    yield "graph.replay()  # after x.copy_(another batch), and y has its answers"


def _graph_code(runtime: str, threads: int) -> Iterator[str]:
    """How model.onnx is run as it was timed; x is a float32 array of any batch size."""
    if runtime == "openvino":
        yield "from openvino import Core"
        yield ""
        yield f'settings = {{"INFERENCE_NUM_THREADS": {threads}, "PERFORMANCE_HINT": "LATENCY"}}'
        yield 'model = Core().compile_model("model.onnx", "CPU", settings)'
        yield "y = model(x)[0]"
        return
    yield "from onnxruntime import InferenceSession, SessionOptions"
    yield ""
    yield "options = SessionOptions()"
    yield f"options.intra_op_num_threads = {threads}"
    yield 'session = InferenceSession("model.onnx", options)'
    yield '(y,) = session.run(["output"], {"input": x})'


def _ms(timing: Mapping[str, float]) -> str:
    return f"{timing['p50_ms']:.3f} ms ({timing['p10_ms']:.3f} to {timing['p90_ms']:.3f})"
