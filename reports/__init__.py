"""Read run directories and say what they mean; nothing here drives load.

`analyse.write_reports` is the way in: it turns a run directory, finished or
not, into `summary.json` and `report.html`. `tables`, `stations`, `usage` and
`series` read the record; `steady`, `steps`, `validity`, `accounting`,
`plateau`, `attribution`, `saturation` and `findings` decide; `html` (with
`charts`, `timecharts`, `figures`) and `text` show. METHODOLOGY.md says how
every number is worked out and why it may be wrong.
"""

__all__ = [
    "accounting",
    "analyse",
    "attribution",
    "charts",
    "figures",
    "findings",
    "foreign",
    "html",
    "plateau",
    "saturation",
    "series",
    "stations",
    "steady",
    "steps",
    "summary",
    "tables",
    "text",
    "timecharts",
    "usage",
    "validity",
]
