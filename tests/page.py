"""Reads a report as a browser would: what it would run, load, obey and show."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would be told to do."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.data: dict[str, str] = {}
        self.links: list[tuple[str, str, str]] = []
        self.handlers: list[str] = []
        self.policy = ""
        self.words: list[str] = []
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._in = tag
        if tag == "script":
            if values.get("type") == "application/json":
                self._in = f"data:{values['id']}"
            else:
                self.scripts.append("")
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        self.handlers += [name for name in values if name.startswith("on")]
        self.links += [(tag, name, values[name]) for name in ("src", "href", "action", "data") if name in values]

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in.startswith("data:"):
            self.data[self._in[5:]] = self.data.get(self._in[5:], "") + data
        elif self._in != "style" and data.strip():
            self.words.append(data.strip())
