
"use strict";
(() => {
  const PAGE = matchMedia("(max-width: 620px)").matches ? 24 : 60;
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = (id) => JSON.parse(document.getElementById(id).textContent);
  const facts = data("report-facts");
  const decided = new Map(); // id -> "keep" | "drop"
  const galleries = [];
  let dirty = false;

  // Texts of whoever made the data: never as HTML, and without what steers the eye.
  const shown = (text) =>
    String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
  const number = (value) =>
    value === null ? "–" : Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));

  function make(tag, { text, ...attributes } = {}, ...children) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = shown(text);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== false && value !== undefined) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  }

  function image(address, alt, kind = "thumb") {
    if (!address) return make("span", { class: `${kind} no-thumb`, text: "no picture" });
    const made = make("img", { class: kind, alt, decoding: "async", draggable: "false" });
    // Few pixels are shown as they are; a large picture is smoothed.
    made.addEventListener("load", () => made.classList.toggle("sharp", made.naturalWidth <= 64), { once: true });
    made.src = address;
    return made;
  }

  function save() {
    const plain = { format: "bezoar.decisions", version: 1, title: facts.title, data: facts.data, decisions: Object.fromEntries([...decided].sort()) };
    const address = URL.createObjectURL(new Blob([JSON.stringify(plain, null, 2) + "\n"], { type: "application/json" }));
    const link = make("a", { href: address, download: "decisions.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    dirty = false;
    tray();
  }

  function tray() {
    const values = [...decided.values()];
    const drops = values.filter((value) => value === "drop").length;
    $("[data-tray]").hidden = values.length === 0;
    $("[data-decided]").textContent = values.length === 0 ? "" : `${number(drops)} drop, ${number(values.length - drops)} keep${dirty ? "" : " · saved"}`;
  }

  function decide(ids, choice) {
    for (const id of ids) {
      if (choice) decided.set(id, choice);
      else decided.delete(id);
    }
    dirty = true;
    tray();
    for (const gallery of galleries) gallery.mark();
  }

  class Gallery {
    constructor(body) {
      this.body = body;
      this.data = data(`${body.dataset.gallery}-data`);
      this.columns = this.data.columns;
      this.details = new Map(this.data.details.map((detail) => [detail.row, detail]));
      this.cards = $("[data-cards]", body);
      this.page = 0;
      this.current = 0;
      this.texts = this.columns.id.map((id, row) => [id, this.className(row), this.columns.reason[row], (this.columns.caption || [])[row] || ""].join("\n").toLowerCase());
      for (const [id, choice] of Object.entries(this.data.decisions)) decided.set(id, choice);
      this.fillClasses();
      this.listen();
      this.update();
    }

    className(row) {
      const label = this.columns.label[row];
      return label < 0 ? "" : this.data.class_names[label] ?? String(label);
    }

    fillClasses() {
      const select = $("[data-class]", this.body);
      const counts = new Map();
      for (const label of this.columns.label) counts.set(label, (counts.get(label) || 0) + 1);
      for (const [label, count] of [...counts].sort((a, b) => b[1] - a[1])) {
        if (label >= 0) select.append(make("option", { value: label, text: `${this.data.class_names[label] ?? label} (${count})` }));
      }
      select.closest("label").hidden = select.options.length < 2;
    }

    choice(row) {
      return decided.get(this.columns.id[row]) || (this.columns.flagged[row] ? "drop" : "keep");
    }

    update({ keepPage = false } = {}) {
      const find = $("[data-find]", this.body).value.trim().toLowerCase();
      const show = $("[data-show]", this.body).value;
      const label = $("[data-class]", this.body).value;
      const tests = {
        all: () => true,
        flagged: (row) => this.columns.flagged[row],
        unflagged: (row) => !this.columns.flagged[row],
        drop: (row) => this.choice(row) === "drop",
        keep: (row) => this.choice(row) === "keep",
        decided: (row) => decided.has(this.columns.id[row]),
      };
      this.rows = [];
      for (let row = 0; row < this.columns.id.length; row++) {
        if (find && !this.texts[row].includes(find)) continue;
        if (label !== "" && String(this.columns.label[row]) !== label) continue;
        if (tests[show](row)) this.rows.push(row);
      }
      this.sort($("[data-sort]", this.body).value);
      if (!keepPage) this.page = 0;
      this.draw();
    }

    sort(by) {
      const { id, rank, score, label } = this.columns;
      const orders = {
        rank: (a, b) => rank[a] - rank[b],
        score: (a, b) => rank[b] - rank[a] || score[a] - score[b],
        label: (a, b) => label[a] - label[b] || rank[a] - rank[b],
        id: (a, b) => (id[a] < id[b] ? -1 : id[a] > id[b] ? 1 : 0),
      };
      if (orders[by]) this.rows.sort(orders[by]);
    }

    get pages() {
      return Math.max(1, Math.ceil(this.rows.length / PAGE));
    }

    draw({ focus = false } = {}) {
      this.page = Math.min(Math.max(this.page, 0), this.pages - 1);
      const first = this.page * PAGE;
      const rows = this.rows.slice(first, first + PAGE);
      this.current = 0;
      this.cards.replaceChildren(...rows.map((row, place) => this.card(row, place)));
      if (rows.length === 0) this.cards.append(make("li", { class: "empty", text: "No image fits; change what is shown." }));
      const whole = this.columns.id.length;
      $("[data-count]", this.body).textContent = rows.length === 0 ? `0 of ${number(whole)} images` : `${number(first + 1)} to ${number(first + rows.length)} of ${number(this.rows.length)} images${this.rows.length < whole ? ` (${number(whole)} without the filter)` : ""}`;
      for (const place of $$("[data-page]", this.body)) place.textContent = `${this.page + 1} / ${this.pages}`;
      for (const button of $$("[data-previous]", this.body)) button.disabled = this.page === 0;
      for (const button of $$("[data-next]", this.body)) button.disabled = this.page === this.pages - 1;
      if (focus) this.focus(0);
    }

    card(row, place) {
      const { id, score, flagged, caption } = this.columns;
      const name = id[row];
      const tab = place === 0 ? "0" : "-1";
      const look = make("button", { type: "button", class: "look", tabindex: tab, title: shown(name) },
        image(this.data.thumbnails[row], ""),
        make("span", { class: "file" }, make("bdi", { text: name.split("/").pop() || name })),
        make("span", { class: "meta" },
          make("bdi", { text: this.className(row) }),
          make("span", { class: flagged[row] ? "mark" : "", text: `${flagged[row] ? "flagged " : ""}${number(score[row])}`, title: "suspicion score" })));
      look.setAttribute("aria-label", shown(`${name}, ${flagged[row] ? "flagged, " : ""}rank ${this.columns.rank[row]}, score ${number(score[row])}: look closer`));
      if (caption && caption[row]) look.append(make("span", { class: "caption" }, make("bdi", { text: caption[row] })));
      const item = make("li", { class: "card-item", "data-row": row }, look, this.buttons(row, tab));
      this.markItem(item);
      return item;
    }

    buttons(row, tab) {
      const button = (choice) => make("button", { type: "button", "data-do": choice, tabindex: tab, text: choice, "aria-label": shown(`${choice} ${this.columns.id[row]}`) });
      return make("span", { class: "choice" }, button("keep"), button("drop"));
    }

    markItem(item) {
      const row = Number(item.dataset.row);
      const own = decided.get(this.columns.id[row]);
      item.classList.toggle("decided", own !== undefined);
      item.classList.toggle("is-drop", this.choice(row) === "drop");
      item.classList.toggle("is-keep", this.choice(row) === "keep");
      for (const button of $$("[data-do]", item)) button.setAttribute("aria-pressed", String(button.dataset.do === own));
    }

    mark() {
      for (const item of $$(".card-item", this.cards)) this.markItem(item);
    }

    toggle(row, choice) {
      const id = this.columns.id[row];
      decide([id], decided.get(id) === choice ? "" : choice); // again takes it back
    }

    focus(place) {
      const items = $$(".card-item", this.cards);
      if (items.length === 0) return;
      for (const button of $$("button", items[this.current])) button.tabIndex = -1;
      this.current = Math.min(Math.max(place, 0), items.length - 1);
      for (const button of $$("button", items[this.current])) button.tabIndex = 0;
      $(".look", items[this.current]).focus();
    }

    turn(by, { focus = false } = {}) {
      const old = this.page;
      this.page += by;
      this.draw({ focus });
      return this.page !== old;
    }

    perRow() {
      return getComputedStyle(this.cards).gridTemplateColumns.split(" ").length;
    }

    listen() {
      let wait;
      $("[data-find]", this.body).addEventListener("input", () => {
        clearTimeout(wait);
        wait = setTimeout(() => this.update(), 90);
      });
      for (const select of $$("select", this.body)) select.addEventListener("change", () => this.update());
      for (const button of $$("[data-previous]", this.body)) button.addEventListener("click", () => this.turn(-1));
      for (const button of $$("[data-next]", this.body)) button.addEventListener("click", () => this.turn(1));
      for (const button of $$("[data-all]", this.body)) button.addEventListener("click", () => decide(this.rows.map((row) => this.columns.id[row]), button.dataset.all));
      this.cards.addEventListener("click", (event) => {
        const item = event.target.closest(".card-item");
        if (!item) return;
        const row = Number(item.dataset.row);
        const button = event.target.closest("[data-do]");
        if (button) this.toggle(row, button.dataset.do);
        else if (event.target.closest(".look")) this.open(row);
      });
      this.cards.addEventListener("focusin", (event) => {
        const items = $$(".card-item", this.cards);
        const place = items.indexOf(event.target.closest(".card-item"));
        if (place < 0 || place === this.current) return;
        for (const button of $$("button", items[this.current])) button.tabIndex = -1;
        for (const button of $$("button", items[place])) button.tabIndex = 0;
        this.current = place;
      });
      this.cards.addEventListener("keydown", (event) => this.key(event));
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const items = $$(".card-item", this.cards);
      const row = items.length ? Number(items[this.current].dataset.row) : -1;
      const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.perRow(), ArrowUp: -this.perRow() }[event.key];
      if (row < 0) return;
      if (move) this.step(this.current + move, items.length);
      else if (event.key === "k" || event.key === "d") this.toggle(row, event.key === "k" ? "keep" : "drop");
      else if (event.key === "u") decide([this.columns.id[row]], "");
      else if (event.key === "PageDown") this.turn(1, { focus: true });
      else if (event.key === "PageUp") this.turn(-1, { focus: true });
      else if (event.key === "Home") this.focus(0);
      else if (event.key === "End") this.focus(items.length - 1);
      else return;
      event.preventDefault();
    }

    step(place, count) {
      if (place >= count && this.page < this.pages - 1) this.turn(1, { focus: true });
      else if (place < 0 && this.page > 0) {
        this.turn(-1);
        this.focus(PAGE - 1);
      } else if (place >= 0 && place < count) this.focus(place);
    }

    open(row) {
      const dialog = $("[data-dialog]");
      const { id, score, rank, p_value, reason, caption } = this.columns;
      const detail = this.details.get(row) || {};
      const figure = (address, name) => make("figure", {}, image(address, shown(`${name} of ${id[row]}`), "shot"), make("figcaption", { text: name }));
      const shots = [figure(detail.image || this.data.thumbnails[row], "image")];
      if (detail.mask) shots.push(figure(detail.mask, "mask: white is what the model needs"), figure(detail.pattern, "pattern: the part that it keeps"));
      const told = make("dl", { class: "facts" });
      const fact = (name, value) => value !== "" && told.append(make("div", {}, make("dt", { text: name }), make("dd", {}, make("bdi", { text: value }))));
      fact("class", this.className(row));
      fact("rank", `${number(rank[row])} of ${number(this.data.total)}`);
      fact("score", number(score[row]));
      fact("p-value", p_value[row] === null ? "" : number(p_value[row]));
      fact("flagged", this.columns.flagged[row] ? "yes" : "no");
      fact("decision", decided.get(id[row]) || "none yet");
      const parts = [make("div", { class: `evidence${shots.length > 1 ? "" : " one"}` }, ...shots)];
      if (caption && caption[row]) parts.push(make("p", { class: "look-text" }, make("q", {}, make("bdi", { text: caption[row] }))));
      if (reason[row]) parts.push(make("p", { class: "look-text" }, make("bdi", { text: reason[row] })));
      parts.push(told);
      if (detail.neighbours) parts.push(make("h3", { text: "Images that the model takes for alike" }), this.near(detail.neighbours));
      parts.push(this.foot(row));
      $("#look-title").replaceChildren(make("bdi", { text: id[row] }));
      $("[data-look]").replaceChildren(...parts);
      if (!dialog.open) dialog.showModal();
      dialog.scrollTop = 0;
    }

    near(rows) {
      return make("div", { class: "near" }, ...rows.map((row) => {
        const button = make("button", { type: "button", title: shown(this.columns.id[row]) }, image(this.data.thumbnails[row], ""),
          make("span", {}, make("bdi", { text: this.className(row) || this.columns.id[row] })), make("span", { class: this.columns.flagged[row] ? "mark" : "", text: this.columns.flagged[row] ? "flagged" : "not flagged" }));
        button.setAttribute("aria-label", shown(`neighbour ${this.columns.id[row]}: look closer`));
        button.addEventListener("click", () => this.open(row));
        return button;
      }));
    }

    foot(row) {
      const place = this.rows.indexOf(row);
      const go = (by, text) => {
        const button = make("button", { type: "button", text });
        button.disabled = this.rows[place + by] === undefined;
        button.addEventListener("click", () => this.open(this.rows[place + by]));
        return button;
      };
      const act = (choice) => {
        const button = make("button", { type: "button", text: choice, "data-do": choice, "aria-pressed": String(decided.get(this.columns.id[row]) === choice) });
        button.addEventListener("click", () => {
          decide([this.columns.id[row]], decided.get(this.columns.id[row]) === choice ? "" : choice);
          this.open(row);
        });
        return button;
      };
      return make("div", { class: "look-foot" }, make("div", {}, act("keep"), act("drop")), make("div", {}, go(-1, "← previous"), go(1, "next →")));
    }
  }

  for (const body of $$("[data-gallery]")) galleries.push(new Gallery(body));
  dirty = false;
  if (galleries.length > 0) {
    for (const gallery of galleries) gallery.mark();
    tray();
    $("[data-save]").addEventListener("click", save);
    $("[data-undo-all]").addEventListener("click", () => decide([...decided.keys()], ""));
    addEventListener("beforeunload", (event) => dirty && decided.size > 0 && event.preventDefault());
    document.addEventListener("keydown", (event) => {
      const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
      if (event.key === "/" && !typing && !$("[data-dialog]").open) {
        event.preventDefault();
        $("[data-find]").focus();
      }
    });
  }
})();
