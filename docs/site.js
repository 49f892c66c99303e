// What the theme leaves for the keyboard or a screen reader to stumble over, as axe-core finds it.
function mend() {
  const all = (what) => document.querySelectorAll(what);
  for (const one of all("pre > code, .md-typeset__scrollwrap")) one.tabIndex = 0;
  for (const one of all("a[id^=__codelineno]")) one.removeAttribute("href");
  for (const one of all(".md-code__nav")) one.setAttribute("role", "none");
  for (const one of all("th:empty")) one.replaceWith(document.createElement("td"));
}
mend();
addEventListener("load", () => setTimeout(mend));
