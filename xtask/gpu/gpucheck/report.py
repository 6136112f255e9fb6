"""Rows of the table. In: what stages found. Out: Markdown and JSON. Absent: finding anything."""

import json

#: A figure agrees with what it was compared with; it differs; it could not be had; it only informs.
OK, DIFFERS, SKIPPED, FACT = "ok", "**differs**", "skipped", ""

#: Longer cells are cut in the table; the JSON has all of it.
CELL = 150


class Report:
    """Rows in the order in which they were found."""

    def __init__(self, heading):
        self.heading = heading
        self.rows = []
        self.raw = {}

    def add(self, stage, what, found, verdict=FACT):
        self.rows.append({"stage": stage, "what": what, "found": str(found), "verdict": verdict})

    def equal(self, stage, what, ours, theirs, source):
        """A row about two figures that should be the same."""
        found = f"gpuspan {ours}, {source} {theirs}"
        self.add(stage, what, found, OK if ours == theirs else DIFFERS)

    def skip(self, stage, what, why):
        self.add(stage, what, why, SKIPPED)

    def keep(self, key, value):
        """Material behind the rows."""
        self.raw[key] = value

    def markdown(self):
        lines = [self.heading, "", "| stage | what | found | |", "|---|---|---|---|"]
        lines += [
            f"| {row['stage']} | {cell(row['what'])} | {cell(row['found'])} | {row['verdict']} |" for row in self.rows
        ]
        count = {verdict: sum(row["verdict"] == verdict for row in self.rows) for verdict in (OK, DIFFERS, SKIPPED)}
        lines += ["", f"{count[OK]} agree, {count[DIFFERS]} differ, {count[SKIPPED]} skipped"]
        return "\n".join(lines) + "\n"

    def json(self):
        return json.dumps({"heading": self.heading, "rows": self.rows, "raw": self.raw}, indent=1, default=str)


def cell(text):
    """One line that breaks no table."""
    text = " ".join(str(text).split()).replace("|", "\\|")
    return text if len(text) <= CELL else text[: CELL - 1] + "…"
