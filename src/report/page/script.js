"use strict";
(() => {
  // Sorting and filtering; what they are set to stands in the address's fragment, so that a view
  // can be kept or sent: #find=team-b&sort=1.6.down (table, column from 1).
  const units = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, PiB: 2 ** 50 };
  const number = (text) => {
    const parts = /^(-?[\d,.]+)(?: (B|KiB|MiB|GiB|TiB|PiB))?/.exec(text);
    return parts ? Number(parts[1].replaceAll(",", "")) * (units[parts[2]] ?? 1) : -Infinity;
  };
  const order = new Intl.Collator("en", { numeric: true });
  const tables = [...document.querySelectorAll("table")].map((table, at) => {
    const rows = [...table.tBodies[0].rows];
    const heads = [...table.tHead.rows[0].cells];
    const some = document.createElement("p");
    some.className = "some";
    some.hidden = true;
    table.parentElement.before(some);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const next = { ascending: "down", descending: "" }[head.ariaSort] ?? "up";
        set("sort", next && `${at + 1}.${column + 1}.${next}`);
      });
    });
    return { table, rows, heads, some, texts: rows.map((row) => row.textContent.toLowerCase()) };
  });
  const settings = () => new URLSearchParams(location.hash.slice(1));
  const set = (name, value) => {
    const now = settings();
    if (value) now.set(name, value);
    else now.delete(name);
    history.replaceState(null, "", `#${now}`);
    show();
  };

  const bar = document.createElement("p");
  bar.className = "find";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "Filter rows";
  input.ariaLabel = "Filter rows";
  input.addEventListener("input", () => set("find", input.value));
  bar.append(input);
  if (tables.some(({ rows }) => rows.length > 1)) {
    tables[0].some.previousElementSibling.before(bar);
  }

  const show = () => {
    const now = settings();
    const find = now.get("find") ?? "";
    if (input.value !== find) input.value = find;
    const words = find.toLowerCase().split(/\s+/).filter(Boolean);
    const [which, column, way] = (now.get("sort") ?? "").split(".");
    tables.forEach(({ table, rows, heads, some, texts }, at) => {
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        if (!row.hidden) shown += 1;
      });
      some.hidden = shown === rows.length;
      some.textContent = `${shown} of ${rows.length} rows`;
      const by = Number(which) === at + 1 ? heads[column - 1] : undefined;
      heads.forEach((head) => (head === by ? undefined : head.removeAttribute("aria-sort")));
      let sorted = rows;
      if (by) {
        by.ariaSort = way === "down" ? "descending" : "ascending";
        const value = by.className === "n" ? number : (text) => text;
        const compare = by.className === "n" ? (a, b) => (a > b) - (a < b) : order.compare;
        const keyed = rows.map((row) => [value(row.cells[column - 1].textContent), row]);
        const turn = way === "down" ? -1 : 1;
        sorted = keyed.sort(([a], [b]) => turn * compare(a, b)).map(([, row]) => row);
      }
      if (sorted.some((row, i) => table.tBodies[0].rows[i] !== row)) table.tBodies[0].append(...sorted);
    });
  };
  addEventListener("hashchange", show);
  show();
})();
