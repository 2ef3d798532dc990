// Layers against images. Only what is in view is drawn, so that 500 layers of 200 images scroll as two of two do.
const ROW = 26;
const MANY = 60; // layers from which on those with the same images share a row
const WIDTH = 150; // pixels of a column at most
const WIDE = 70; // pixels of a column from which on its heading need not be turned
const TWO_LINES = 34; // and from which on a turned one has two lines

class Matrix {
  constructor(home, changed) {
    Object.assign(this, { changed, cursor: null, hover: null, layerWords: "", imageWords: "", order: "most shared first" });
    Object.assign(this, { imageOrder: "as declared", grouped: layers.length > MANY, fits: new Map() });
    this.pen = document.createElement("canvas").getContext("2d");
    this.pen.font = `13px ${getComputedStyle(document.body).fontFamily}`;
    this.svg = draw("svg", { role: "img" });
    this.room = make("div", {}, this.svg);
    this.box = make(
      "div",
      {
        class: "grid",
        tabindex: "0",
        role: "application",
        "aria-label": "Layers against images. Arrow keys move; what is there is told below. The same as tables follows.",
        scroll: () => this.later(),
        keydown: (event) => this.key(event),
        mousemove: (event) => this.point(event, false),
        mouseleave: () => this.leave(),
        click: (event) => this.point(event, true),
      },
      this.room,
    );
    this.status = make("p", { class: "soft", role: "status" });
    this.words = make("div", { class: "told", "aria-live": "polite" });
    home.append(this.tools(), this.status, this.box, this.words);
    new ResizeObserver(() => this.later()).observe(this.box);
    this.choose();
    this.tell(null);
  }

  tools() {
    const search = (name) => (event) => {
      this[name] = event.target.value.trim().toLowerCase();
      this.choose();
    };
    const select = (name, orders) =>
      make(
        "select",
        {
          change: (event) => {
            this[name] = event.target.value;
            this.choose();
          },
        },
        ...Object.keys(orders).map((order) => make("option", {}, order)),
      );
    const group = make("input", {
      type: "checkbox",
      id: "group",
      checked: this.grouped,
      change: (event) => {
        this.grouped = event.target.checked;
        this.choose();
      },
    });
    return make(
      "div",
      { class: "tools" },
      labelled("Filter layers", make("input", { type: "search", id: "filter-layers", input: search("layerWords") })),
      labelled("Filter images", make("input", { type: "search", id: "filter-images", input: search("imageWords") })),
      labelled("Order of layers", select("order", ORDERS)),
      labelled("Order of images", select("imageOrder", IMAGE_ORDERS)),
      labelled("one row for layers of the same images", group, "check"),
    );
  }

  /** What is shown, by filters and orders. */
  choose() {
    const wanted = images.map((image, n) => n).filter((n) => images[n].name.toLowerCase().includes(this.imageWords));
    this.columns = wanted.sort(IMAGE_ORDERS[this.imageOrder]);
    const visible = new Set(wanted);
    this.rows = entries(this.grouped)
      .filter((row) => row.words.includes(this.layerWords) && row.users.some((n) => visible.has(n)))
      .sort(ORDERS[this.order]);
    this.largest = Math.max(1, ...this.rows.map((row) => row.bytes));
    this.cursor = null;
    this.box.scrollTo(0, 0);
    this.summarize(visible);
    this.changed(this.layerWords, this.imageWords);
    this.later();
  }

  summarize(visible) {
    const some = new Set(this.rows.flatMap((row) => row.layers));
    const shares = [...visible].map((n) => sum([...held[n]].filter((i) => some.has(i))));
    const separate = shares.reduce((all, one) => all + one.bytes, 0);
    this.status.textContent =
      `${counted(some.size, "layer")} in ${counted(visible.size, "image")}: ` +
      `${size(separate)} of images, ${told(sum(some))} stored. Filled squares are shared, hollow ones are not.`;
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  measure(whole) {
    const width = whole ? 1000 : this.box.clientWidth;
    const columns = Math.max(1, this.columns.length);
    const room = Math.max(440, width - columns * WIDTH - 12);
    this.label = Math.max(230, Math.min(room, Math.floor(width * 0.6)));
    this.column = Math.min(WIDTH, Math.max(22, Math.floor((width - this.label - 12) / columns)));
    const longest = Math.max(0, ...this.columns.map((n) => this.measured(images[n].name)));
    this.turned = this.column < WIDE || longest > this.column - 6;
    this.head = this.turned ? Math.min(220, Math.max(90, longest + 20) + (this.column < TWO_LINES ? 70 : 0)) : 48;
    this.width = this.label + columns * this.column + 12;
    this.height = this.head + this.rows.length * ROW + 4;
  }

  /** What is in view; or, for paper, the whole in the width of a page. */
  draw(whole = false) {
    this.measure(whole);
    const { box, room, svg } = this;
    room.style.width = whole ? "" : `${this.width}px`;
    room.style.height = whole ? "" : `${this.height}px`;
    const width = whole ? this.width : box.clientWidth;
    const height = whole ? this.height : Math.min(box.clientHeight || 576, this.height);
    const [left, top] = whole ? [0, 0] : [box.scrollLeft, box.scrollTop];
    const first = Math.floor(top / ROW);
    const last = Math.min(this.rows.length, Math.ceil((top + height - this.head) / ROW));
    const from = Math.floor(left / this.column);
    const to = Math.min(this.columns.length, Math.ceil((left + width - this.label) / this.column));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.style.width = whole ? "100%" : `${width}px`;
    svg.style.height = whole ? "auto" : `${height}px`;
    svg.setAttribute("aria-label", `${this.rows.length} rows of layers, ${this.columns.length} columns of images`);
    const inner = [width - this.label, height - this.head];
    svg.replaceChildren(
      window_(0, this.head, width, inner[1], this.bands(first, last, top, width)),
      window_(this.label, this.head, ...inner, this.cells(first, last, from, to, left, top)),
      window_(0, this.head, this.label, inner[1], this.labels(first, last, top)),
      window_(this.label, 0, inner[0], this.head, this.heads(from, to, left)),
      ...this.corner(width, height),
    );
  }

  at() {
    return this.hover || this.cursor || {};
  }

  bands(first, last, top, width) {
    const { row } = this.at();
    if (row === undefined || row < first || row >= last) return [];
    return [draw("rect", { class: "band", y: row * ROW - top, width, height: ROW })];
  }

  cells(first, last, from, to, left, top) {
    const found = [];
    for (let column = from; column < to; column += 1) {
      for (let row = first; row < last; row += 1) {
        const { users: some, kind } = this.rows[row];
        if (!some.includes(this.columns[column])) continue;
        const x = column * this.column - left + this.column / 2 - 6.5;
        const form = some.length > 1 ? "shared" : "alone";
        found.push(
          draw("rect", { class: `cell kind-${kind} ${form}`, x, y: row * ROW - top + 6.5, width: 13, height: 13, rx: 3 }),
        );
      }
    }
    if (this.cursor) {
      const x = this.cursor.column * this.column - left + this.column / 2 - 10.5;
      found.push(draw("rect", { class: "cursor", x, y: this.cursor.row * ROW - top + 2.5, width: 21, height: 21, rx: 5 }));
    }
    return found;
  }

  labels(first, last, top) {
    const found = [];
    for (let row = first; row < last; row += 1) {
      const entry = this.rows[row];
      const y = row * ROW - top;
      // a narrow window has room for names and sizes only
      const [bar, kind] = [this.label < 330 ? 0 : 80, this.label < 400 ? 0 : 90];
      const share = Math.max(entry.bytes ? 1.5 : 0, 70 * Math.sqrt(entry.bytes / this.largest));
      found.push(
        draw("rect", { class: `kind-${entry.kind}`, x: 12, y: y + 9, width: 8, height: 8, rx: 2 }),
        draw("text", { class: "title", x: 28, y: y + 17.5 }, this.fit(entry.title, this.label - 146 - bar - kind)),
        kind ? draw("text", { class: "soft", x: this.label - 194 - kind, y: y + 17.5 }, entry.kind) : "",
        bar ? draw("rect", { class: "size", x: this.label - 190, y: y + 8, width: share, height: 10, rx: 2 }) : "",
        draw("text", { x: this.label - 42, y: y + 17.5, "text-anchor": "end" }, entry.unknown ? told(entry).replace("0 B + ", "") : size(entry.bytes)),
        draw("text", { class: "soft", x: this.label - 12, y: y + 17.5, "text-anchor": "end" }, `${entry.users.length}`),
      );
    }
    return found;
  }

  heads(from, to, left) {
    const found = [];
    for (let column = from; column < to; column += 1) {
      const n = this.columns[column];
      const x = column * this.column - left + this.column / 2;
      const total = told(sum(held[n]));
      if (this.at().column === column) {
        found.push(draw("rect", { class: "band", x: x - this.column / 2, width: this.column, height: this.head }));
      }
      if (this.turned) {
        const two = this.column >= TWO_LINES;
        const name = this.fit(images[n].name, this.head - (two ? 16 : 90), true);
        const turned = (dx) => ({ transform: `translate(${x + dx} ${this.head - 8}) rotate(-90)` });
        found.push(draw("text", turned(two ? -3 : 4.5), two ? name : `${name} · ${total}`, draw("title", {}, images[n].name)));
        if (two) found.push(draw("text", { ...turned(13), class: "soft" }, total));
      } else {
        const middle = { x, "text-anchor": "middle" };
        const name = this.fit(images[n].name, this.column - 8, true);
        found.push(draw("text", { ...middle, y: 20 }, name, draw("title", {}, images[n].name)));
        found.push(draw("text", { ...middle, y: 38, class: "soft" }, total));
      }
    }
    return found;
  }

  corner(width, height) {
    const y = this.head - 10;
    return [
      draw("text", { class: "soft", x: 28, y }, "Layer"),
      draw("text", { class: "soft", x: this.label - 42, y, "text-anchor": "end" }, "Size"),
      draw("text", { class: "soft", x: this.label - 12, y, "text-anchor": "end" }, "In"),
      draw("line", { class: "rule", x1: 0, x2: width, y1: this.head - 0.5, y2: this.head - 0.5 }),
      draw("line", { class: "rule", x1: this.label - 0.5, x2: this.label - 0.5, y1: 0, y2: height }),
    ];
  }

  /** `text` in so many pixels; of a name that differs from others at its end, the middle gives way. */
  fit(text, width, middle) {
    const key = `${Math.floor(width)} ${text}`;
    if (!this.fits.has(key)) {
      let kept = Math.min(text.length, 200);
      const cut = () => {
        if (kept === text.length) return text;
        const end = middle ? Math.floor(kept / 2) : 0;
        return `${text.slice(0, kept - end)}…${text.slice(text.length - end)}`;
      };
      while (kept > 2 && this.measured(cut()) > width) kept -= 1;
      this.fits.set(key, cut());
    }
    return this.fits.get(key);
  }

  /** Pixels that `text` takes. */
  measured(text) {
    return this.pen.measureText(text).width;
  }

  point(event, click) {
    const frame = this.box.getBoundingClientRect();
    const x = event.clientX - frame.left - this.box.clientLeft;
    const y = event.clientY - frame.top - this.box.clientTop;
    const row = y < this.head ? undefined : Math.floor((y - this.head + this.box.scrollTop) / ROW);
    const column = x < this.label ? undefined : Math.floor((x - this.label + this.box.scrollLeft) / this.column);
    const known = { row: row < this.rows.length ? row : undefined, column: column < this.columns.length ? column : undefined };
    if (click) {
      this.cursor = known.row === undefined && known.column === undefined ? null : { row: known.row ?? 0, column: known.column ?? 0 };
      this.tell(known);
    }
    this.hover = known;
    this.later();
  }

  leave() {
    this.hover = null;
    this.later();
  }

  key(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-20, 0], PageDown: [20, 0] };
    const far = { Home: [-this.rows.length, 0], End: [this.rows.length, 0] };
    const step = steps[event.key] || far[event.key];
    if (!step || !this.rows.length || !this.columns.length) return;
    event.preventDefault();
    const start = this.cursor || { row: -step[0], column: -step[1] };
    const clamp = (value, count) => Math.max(0, Math.min(count - 1, value));
    this.cursor = { row: clamp(start.row + step[0], this.rows.length), column: clamp(start.column + step[1], this.columns.length) };
    this.hover = null;
    this.reveal();
    this.tell(this.cursor);
    this.later();
  }

  /** Scrolls the cursor into view. */
  reveal() {
    const { box, cursor } = this;
    const top = cursor.row * ROW;
    const left = cursor.column * this.column;
    const bottom = top + ROW - (box.clientHeight - this.head);
    const right = left + this.column - (box.clientWidth - this.label);
    box.scrollTop = Math.max(bottom, Math.min(box.scrollTop, top));
    box.scrollLeft = Math.max(right, Math.min(box.scrollLeft, left));
  }

  /** Says in words what is at a place. */
  tell(at) {
    const row = at && at.row !== undefined ? this.rows[at.row] : null;
    const n = at && at.column !== undefined ? this.columns[at.column] : null;
    const lines = [];
    if (row) lines.push(...wordsOfRow(row));
    if (row && n !== null) lines.push(`${images[n].name} ${row.users.includes(n) ? "has" : "does not have"} it.`);
    if (!row && n !== null && n !== undefined) lines.push(...wordsOfImage(n));
    if (!lines.length) lines.push("Choose a layer, an image or a square; or move with the arrow keys.");
    this.words.replaceChildren(...lines.map((line) => make("p", {}, line)));
  }
}
