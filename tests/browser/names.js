// What a screen reader would stumble over.
() => {
  const faults = [];
  const named = (e) => {
    const by = (e.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join("");
    const labels = [...(e.labels || [])].map((label) => label.querySelector("span")?.textContent ?? label.textContent).join("");
    return [by, e.getAttribute("aria-label"), labels, e.textContent, e.getAttribute("alt")].some((text) => text && text.trim());
  };
  for (const e of document.querySelectorAll("a, button, input, select, summary, nav, dialog, section, [role=region], [role=group], [role=img]"))
    if (e.checkVisibility() && !named(e)) faults.push("no name: " + e.outerHTML.slice(0, 80));
  for (const e of document.querySelectorAll("input, select")) if (!e.labels.length) faults.push("no label: " + e.outerHTML.slice(0, 80));
  for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) faults.push("no alt: " + e.outerHTML.slice(0, 60));
  for (const name of ["aria-labelledby", "aria-describedby"])
    for (const e of document.querySelectorAll(`[${name}]`))
      for (const id of e.getAttribute(name).split(" ")) if (!document.getElementById(id)) faults.push("leads nowhere: " + id);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size < ids.length) faults.push("an id comes twice");
  let level = 0;
  for (const e of document.querySelectorAll("h1, h2, h3, h4")) {
    if (!e.checkVisibility()) continue;
    if (Number(e.tagName[1]) > level + 1) faults.push("a level is left out: " + e.textContent);
    level = Number(e.tagName[1]);
  }
  if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
  if (!document.documentElement.lang) faults.push("no language");
  if (document.querySelectorAll("main").length !== 1) faults.push("not one main");
  for (const e of document.querySelectorAll("table")) if (!e.querySelector("th[scope]")) faults.push("a table without headers");
  for (const e of document.querySelectorAll("ul, ol")) for (const c of e.children) if (c.tagName !== "LI") faults.push("a list holds " + c.tagName);
  for (const e of document.querySelectorAll("[tabindex]")) if (e.tabIndex > 0) faults.push("a tabindex above 0");
  return faults;
}
