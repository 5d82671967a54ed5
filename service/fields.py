"""What a value in a request may look like, whatever it stands for."""

from typing import Annotated, Literal

from pydantic import StringConstraints

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
# What no database refuses and no terminal obeys.
Text = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[Text, StringConstraints(min_length=1)]
Verdict = Literal["budget_met", "budget_missed", "no_gain"]
