"""What a browser says of a page: its errors, what it asked for, and what a reader can see and reach."""

from dataclasses import dataclass, field
from typing import Any, Literal

Scheme = Literal["light", "dark"]

LOW_CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = rgba(getComputedStyle(each).backgroundColor);
      if (colour[3] > 0) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
    if (!own.length || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const ink = rgba(element.closest("svg") ? style.fill : style.color);
    const [high, low] = [light(ink), light(behind(element))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push(`${own[0].data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
}
"""
"""Visible text, of charts too, whose WCAG contrast is below 4.5."""

WIDER = """
() => [...document.querySelectorAll("body *")]
  .filter((element) => element.checkVisibility() && !element.closest(".scroll, pre, .skip"))
  .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((element) => `${element.tagName} ${element.textContent.trim().slice(0, 40)}`)
"""
"""What reaches beyond the right edge, but where it scrolls in a box of its own."""

REACHABLE = 'a[href], summary, [tabindex="0"], button, input'


@dataclass
class Looked:
    """A page in a browser, and what it did since it was opened."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Write down what the console says, what fails and what is asked for."""
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def asked_elsewhere(self, address: str) -> list[str]:
        """Return what was asked for besides ``address`` and what is in the page itself."""
        return [url for url in self.requests if url != address and not url.startswith("data:")]

    def low_contrast(self) -> list[str]:
        """Return visible text that is hard to read."""
        return list(self.page.evaluate(LOW_CONTRAST))

    def beyond_the_edge(self) -> list[str]:
        """Return what makes a reader scroll sideways; the page's own width first."""
        page = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        wide = ["the page"] if self.page.evaluate(page) else []
        return wide + list(self.page.evaluate(WIDER))

    def not_reached_by_tab(self) -> list[str]:
        """Return what can be used, but not with the Tab key, or without a visible focus."""
        count = self.page.evaluate(
            """(wanted) => {
              const all = [...document.querySelectorAll(wanted)].filter((each) => each.checkVisibility());
              all.forEach((each, number) => { each.dataset.place = number; });
              return all.length;
            }""",
            REACHABLE,
        )
        self.page.evaluate("document.activeElement.blur()")
        for _ in range(count):
            self.page.keyboard.press("Tab")
            self.page.evaluate(
                """() => {
                  const style = getComputedStyle(document.activeElement);
                  if (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0)
                    document.activeElement.dataset.seen = 1;
                }"""
            )
        return list(
            self.page.evaluate(
                """() => [...document.querySelectorAll("[data-place]:not([data-seen])")]
                  .map((each) => each.outerHTML.slice(0, 80))"""
            )
        )

    def empty_drawings(self) -> list[str]:
        """Return charts and pictures that take no place, or show nothing."""
        return list(
            self.page.evaluate(
                """() => [...document.querySelectorAll("figure > svg, figure > img")].filter((each) => {
                  const box = each.getBoundingClientRect();
                  const marks = each.querySelectorAll("path, text").length;
                  const drawn = each.tagName === "IMG" ? each.naturalWidth > 1 : marks > 3;
                  return box.width < 100 || box.height < 40 || !drawn;
                }).map((each) => each.outerHTML.slice(0, 80))"""
            )
        )

    def hidden_text(self) -> list[str]:
        """Return the tables and paragraphs that do not show."""
        return list(
            self.page.evaluate(
                """() => [...document.querySelectorAll("p, td, th, pre, li, figure svg, figure img")]
                  .filter((each) => !each.checkVisibility() || each.getBoundingClientRect().height === 0)
                  .map((each) => each.textContent.trim().slice(0, 40))"""
            )
        )
