"use strict";
// Texts go into the page by textContent alone: names come from the model file.
const byId = (id) => document.getElementById(id);

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

// Light and dark.
const themeButton = byId("theme");
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (systemIsDark.matches ? "dark" : "light")) === "dark";
const nameTheme = () => { themeButton.textContent = isDark() ? "Light page" : "Dark page"; };
themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
systemIsDark.addEventListener("change", nameTheme);
nameTheme();

// On paper everything is open.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

/* Arrow keys, Home and End move an index within [0, count). */
function moved(key, now, count) {
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  return key in steps ? Math.min(Math.max(now + steps[key], 0), count - 1) : null;
}

/* Where in a picture that may be shown smaller than it is. */
function horizontal(event, svg) {
  const box = svg.getBoundingClientRect();
  return ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
}

function keepInView(holder, svg, x) {
  const at = (x / svg.viewBox.baseVal.width) * svg.getBoundingClientRect().width;
  if (at < holder.scrollLeft + 40 || at > holder.scrollLeft + holder.clientWidth - 40) {
    holder.scrollLeft = at - holder.clientWidth / 2;
  }
}

function widths() {
  const holder = byId("widths-picture");
  if (!holder) return;
  const svg = holder.querySelector("svg");
  const cursor = byId("widths-cursor");
  const left = Number(cursor.dataset.left);
  const step = Number(cursor.dataset.step);
  const rows = byId("widths-table").querySelector("tbody").rows;
  let now = -1;
  function show(i) {
    now = i;
    const cells = Array.from(rows[i].cells, (cell) => cell.textContent);
    const [name, operator, reason, before, after, share] = cells;
    let text = `${i + 1}. ${name} (${operator}): ${after} of ${before} kept, ${share}`;
    if (reason) text += `; can't shrink: ${reason}`;
    const note = byId("widths-note");
    note.textContent = text;
    const group = rows[i].querySelector("[data-group]");
    if (group) {
      note.append(" ");
      const button = element("button", "its group", note);
      button.type = "button";
      button.addEventListener("click", () => chooseGroup(Number(group.dataset.group), true));
    }
    cursor.setAttribute("x", left + i * step - 1);
    cursor.setAttribute("visibility", "visible");
    holder.setAttribute("aria-valuenow", i + 1);
    holder.setAttribute("aria-valuetext", text);
    keepInView(holder, svg, left + i * step);
  }
  holder.addEventListener("keydown", (event) => {
    const next = moved(event.key, now, rows.length);
    if (next === null) return;
    event.preventDefault();
    show(next);
  });
  svg.addEventListener("click", (event) => {
    const i = Math.floor((horizontal(event, svg) - left) / step);
    if (i >= 0 && i < rows.length) show(i);
  });
}

let chooseGroup = () => {};

function groups() {
  const source = byId("group-data");
  if (!source) return;
  const { groups: all, texts } = JSON.parse(source.textContent);
  const list = byId("group-list");
  const detail = byId("group-detail");
  const holder = byId("group-picture");
  const svg = holder.querySelector("svg");
  const { side, step, line, arcs, spans } = Object.fromEntries(
    Object.entries(holder.dataset).map(([key, value]) => [key, Number(value)]),
  );
  const options = Array.from(list.options);
  const place = (i) => side + i * step;
  let now = -1;

  function facts(parent, pairs) {
    const rows = element("table", undefined, parent);
    for (const [name, value] of pairs) {
      const row = element("tr", undefined, rows);
      const head = element("th", name, row);
      head.scope = "row";
      element("td", value, row);
    }
  }

  function show(i) {
    const [id, kind, size, kept, state, layer, macs, params, reason, changes, members, many, near, nearMany] = all[i];
    now = i;
    detail.textContent = "";
    element("h3", texts[id], detail);
    const known = [
      ["layer", texts[layer]],
      ["kind", texts[kind]],
      ["units", `${kept} of ${size} kept`],
      ["state", texts[state]],
    ];
    if (reason >= 0) known.push(["blocked because", texts[reason]]);
    known.push(["MACs involved", macs.toLocaleString("en")]);
    known.push(["parameters involved", params.toLocaleString("en")]);
    facts(detail, known);
    if (changes.length) {
      element("p", "Removal changes statistics, so it is not the same as zeroing:", detail);
      const items = element("ul", undefined, detail);
      for (const change of changes) element("li", texts[change], items);
    }
    element("h3", `Goes together (${many})`, detail);
    const items = element("ul", undefined, detail);
    for (const [name, axis] of members) {
      const item = element("li", undefined, items);
      element("code", texts[name], item);
      item.append(`, axis ${axis}`);
    }
    if (many > members.length) element("li", `and ${many - members.length} more`, items);
    element("h3", `Shares a weight with (${nearMany})`, detail);
    const buttons = element("ul", undefined, detail);
    for (const [other, weight] of near) {
      const item = element("li", undefined, buttons);
      const button = element("button", texts[all[other][0]], item);
      button.type = "button";
      button.className = "chooser";
      button.addEventListener("click", () => chooseGroup(other, false));
      item.append(" by ");
      element("code", texts[weight], item);
    }
    if (nearMany > near.length) element("li", `and ${nearMany - near.length} more`, buttons);
    byId("group-arcs").setAttribute("d", near.map(([other]) => arc(Math.min(i, other), Math.max(i, other))).join(""));
    const cursor = byId("group-cursor");
    cursor.setAttribute("cx", place(i));
    cursor.setAttribute("visibility", "visible");
    keepInView(holder, svg, place(i));
  }

  function arc(a, b) {
    const across = (b - a) * step;
    return `M${place(a)} ${line}a${across / 2} ${arcs * Math.sqrt((b - a) / spans)} 0 0 1 ${across} 0`;
  }

  chooseGroup = (i, jump) => {
    if (!options[i].isConnected) {
      byId("group-filter").value = "";
      filter();
    }
    options[i].selected = true;
    show(i);
    if (jump) list.focus();
  };

  function filter() {
    const wanted = byId("group-filter").value.toLowerCase();
    list.replaceChildren(...options.filter((option) => option.textContent.toLowerCase().includes(wanted)));
  }

  list.addEventListener("change", () => { if (list.value !== "") show(Number(list.value)); });
  byId("group-filter").addEventListener("input", filter);
  holder.addEventListener("keydown", (event) => {
    const next = moved(event.key, now, all.length);
    if (next === null) return;
    event.preventDefault();
    chooseGroup(next, false);
  });
  svg.addEventListener("click", (event) => {
    const i = Math.round((horizontal(event, svg) - side) / step);
    if (i >= 0 && i < all.length) chooseGroup(i, false);
  });
  for (const button of document.querySelectorAll("button[data-group]")) {
    button.addEventListener("click", () => chooseGroup(Number(button.dataset.group), true));
  }
}

widths();
groups();
