// The theme, and tables that are sorted by the column whose head is pressed.
{
  const THEMES = { system: "", light: "light", dark: "dark" };
  const root = document.documentElement;
  const button = document.querySelector("[data-theme-button]");
  const keep = (name) => {
    // A browser may deny storage to pages from disk.
    try { localStorage.setItem("drain-gdb-theme", name); } catch { return; }
  };
  const kept = () => {
    try { return localStorage.getItem("drain-gdb-theme"); } catch { return null; }
  };
  const wear = (name) => {
    if (THEMES[name]) root.dataset.theme = THEMES[name];
    else delete root.dataset.theme;
    button.textContent = `Theme: ${name}`;
    document.dispatchEvent(new Event("recolour"));
  };
  let theme = kept() in THEMES ? kept() : "system";
  button.hidden = false;
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    theme = names[(names.indexOf(theme) + 1) % names.length];
    keep(theme);
    wear(theme);
  });
  wear(theme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    document.dispatchEvent(new Event("recolour")));
  addEventListener("beforeprint", () => { wear("light"); });
  addEventListener("afterprint", () => { wear(theme); });

  const valueOf = (row, column) => {
    const text = row.cells[column].dataset.value;
    return text === "" ? null : Number(text);
  };
  for (const table of document.querySelectorAll("[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const press = head.querySelector("button");
      if (!press) return;
      press.addEventListener("click", () => {
        const first = column === 0 ? "ascending" : "descending";
        const second = first === "ascending" ? "descending" : "ascending";
        const next = head.getAttribute("aria-sort") === first ? second : first;
        const sign = next === "ascending" ? 1 : -1;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", next);
        const body = table.tBodies[0];
        const rows = [...body.rows].sort((one, other) => {
          const a = valueOf(one, column), b = valueOf(other, column);
          if (a === null || b === null) return (a === null) - (b === null);
          return sign * (a - b);
        });
        body.append(...rows);
      });
    });
  }
}
