// Tables that are sorted by their headings, filtered, and shown in pieces, so that a page of 500 rows stays light.
const PIECE = 25;
const tables = [];

/**
 * A table with a heading to sort by and a pager.
 * columns: {label, cell(row) -> text or element, by(row) -> number or text to sort by, number: align right, name: wide}
 * options: {caption, words(row) -> text that the filter looks into}
 */
class Table {
  constructor(columns, rows, options) {
    Object.assign(this, { columns, rows, options, first: 0, needle: "", column: null, down: false, chosen: null });
    this.head = make("tr", {}, ...columns.map((column, n) => this.heading(column, n)));
    this.body = make("tbody", {});
    this.pager = make("div", { class: "pager" });
    const caption = make("caption", {}, options.caption);
    const table = make("table", {}, caption, make("thead", {}, this.head), this.body);
    // what scrolls must be in reach of the keyboard
    const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": options.caption }, table);
    this.element = make("div", {}, scroll, this.pager);
    tables.push(this);
    this.show();
  }

  heading(column, n) {
    const button = make("button", { type: "button", click: () => this.sort(n) }, column.label);
    return make("th", { scope: "col", class: column.number ? "number" : null }, column.by ? button : column.label);
  }

  sort(n) {
    this.down = this.column === n ? !this.down : Boolean(this.columns[n].number);
    this.column = n;
    this.first = 0;
    [...this.head.children].forEach((cell, at) => {
      if (at === n) cell.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    this.show();
  }

  filter(needle) {
    this.needle = needle.trim().toLowerCase();
    this.first = 0;
    this.show();
  }

  replace(rows) {
    this.rows = rows;
    this.first = 0;
    this.show();
  }

  found() {
    const rows = this.rows.filter((row) => this.options.words(row).toLowerCase().includes(this.needle));
    if (this.column === null) return rows;
    const { by } = this.columns[this.column];
    const turn = this.down ? -1 : 1;
    return rows.sort((a, b) => turn * compare(by(a), by(b)));
  }

  show(all = false) {
    const rows = this.found();
    const piece = all ? rows : rows.slice(this.first, this.first + PIECE);
    this.body.replaceChildren(...piece.map((row) => this.row(row)));
    const turn = (by) => () => {
      this.first += by;
      this.show();
    };
    const last = Math.min(this.first + PIECE, rows.length);
    const back = make("button", { type: "button", disabled: this.first === 0, click: turn(-PIECE) }, "Previous");
    const on = make("button", { type: "button", disabled: last === rows.length, click: turn(PIECE) }, "Next");
    const where = make("span", { role: "status" }, `${this.first + 1} to ${last} of ${rows.length}`);
    this.pager.replaceChildren(...(rows.length > PIECE ? [back, where, on] : rows.length ? [] : ["nothing found"]));
  }

  row(row) {
    const cells = this.columns.map((column) => {
      const type = column.number ? "number" : column.name ? "name" : null;
      return make(column.name ? "th" : "td", { class: type, scope: column.name ? "row" : null }, column.cell(row));
    });
    return make("tr", { class: row === this.chosen ? "chosen" : null }, ...cells);
  }
}

/** Numbers by value, others as text; what is not known comes first. */
function compare(a, b) {
  if (a === b) return 0;
  if (a === null) return -1;
  if (b === null) return 1;
  return typeof a === "number" ? a - b : String(a).localeCompare(String(b));
}
