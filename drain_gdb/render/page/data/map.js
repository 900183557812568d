// The heat map: cells in rows, drawn as far as they are in view.
{
  const TENTHS = 10;
  // Colours after the tenths, in the order of the legend.
  const NAMES = ["empty", "cache-held", "active", "dirty", "muzzy", "retained", "otherwise"];
  const SMALLEST = 1, LARGEST = 24, FIRST = 14, GRID = 4, LOWEST = 160;
  const numbers = new Intl.NumberFormat("en-US");
  const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  const amount = (bytes) => {
    let unit = 0;
    while (bytes >= 1024 && unit < UNITS.length - 1) { bytes /= 1024; unit += 1; }
    return `${unit ? bytes.toFixed(1) : bytes} ${UNITS[unit]}`;
  };

  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  };

  class Cells {
    constructor(told, buffer) {
      const n = told.count;
      const gap = new Float64Array(buffer, 0, n);
      this.count = n;
      this.page = BigInt(told.page);
      this.kinds = told.kinds;
      this.pages = new Float64Array(buffer, 8 * n, n);
      this.kind = new Uint32Array(buffer, 16 * n, n);
      this.allocated = new Uint32Array(buffer, 20 * n, n);
      this.cached = new Uint32Array(buffer, 24 * n, n);
      this.group = new Uint32Array(buffer, 28 * n, n);
      this.groups = told.groups;
      this.start = new Float64Array(n);
      this.colour = new Uint8Array(n);
      let end = 0;
      for (let i = 0; i < n; i += 1) {
        this.start[i] = end + gap[i];
        end = this.start[i] + this.pages[i];
        this.colour[i] = this.colourOf(i);
      }
    }

    colourOf(i) {
      const kind = this.kinds[this.kind[i]];
      if (kind.state !== "slab") {
        const place = NAMES.indexOf(kind.state);
        return TENTHS + (place < 0 ? NAMES.length - 1 : place);
      }
      const live = this.allocated[i] - this.cached[i];
      if (live > 0) return Math.min(TENTHS - 1, Math.floor((TENTHS * live) / kind.nregs));
      return TENTHS + NAMES.indexOf(this.allocated[i] ? "cache-held" : "empty");
    }

    address(i) { return `0x${(BigInt(this.start[i]) * this.page).toString(16)}`; }

    // The cell that holds an address, -1 for none.
    at(address) {
      const page = Number(address / this.page);
      let low = 0, high = this.count;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.start[middle] <= page) low = middle + 1;
        else high = middle;
      }
      const found = low - 1;
      return found >= 0 && page < this.start[found] + this.pages[found] ? found : -1;
    }

    tell(i) {
      const kind = this.kinds[this.kind[i]];
      const told = {
        address: this.address(i),
        arena: String(kind.arena) + (kind.shard ? ` / ${kind.shard}` : ""),
        bytes: amount(this.pages[i] * Number(this.page)),
        live: "–", cached: "–", free: "–", occupancy: "–",
        pinners: this.groups[this.group[i]] || "–",
      };
      if (kind.state !== "slab") {
        told.what = kind.state === "active" ? "large allocation" : `${kind.state} extent`;
        return told;
      }
      const live = this.allocated[i] - this.cached[i];
      told.what = `slab of class ${numbers.format(kind.size)}`;
      told.live = numbers.format(live);
      told.cached = numbers.format(this.cached[i]);
      told.free = numbers.format(kind.nregs - this.allocated[i]);
      told.occupancy = `${((100 * live) / kind.nregs).toFixed(1)} %`;
      return told;
    }

    // Rows of those that are shown, in an order.
    arranged(show, order) {
      const wanted = this.kinds.map((kind) =>
        !show || (kind.state === "slab" && (show === "slab" || kind.size === Number(show))));
      let rows = Uint32Array.from({ length: this.count }, (_, i) => i);
      if (show) rows = rows.filter((i) => wanted[this.kind[i]]);
      if (order === "address") return rows;
      const weights = this.kinds.map((kind) => (kind.state === "slab" ? kind.size : 2 ** 20));
      const key = order === "size"
        ? (i) => weights[this.kind[i]]
        : (i) => this.colour[i] >= TENTHS + 2 ? 2 ** 20
          : Math.round(((this.allocated[i] - this.cached[i]) / this.kinds[this.kind[i]].nregs) * 2 ** 16);
      const keys = Float64Array.from(rows, (i) => key(i) * 2 ** 32 + i).sort();
      return Uint32Array.from(keys, (value) => value % 2 ** 32);
    }
  }

  class HeatMap {
    constructor(place, cells) {
      const find = (name) => place.querySelector(`[data-${name}]`);
      this.place = place;
      this.cells = cells;
      this.view = find("view");
      this.canvas = find("canvas");
      this.space = find("space");
      this.zoom = find("zoom");
      this.live = find("live");
      this.said = find("said");
      this.pen = this.canvas.getContext("2d");
      this.buffer = new OffscreenCanvas(1, 1);
      this.cell = 0;
      this.chosen = -1;
      this.pointed = -1;
      this.rows = cells.arranged("", "address");
      const show = find("show"), order = find("order");
      const arrange = () => {
        const held = this.rows[this.chosen];
        this.rows = cells.arranged(show.value, order.value);
        this.chosen = held === undefined ? -1 : this.rows.indexOf(held);
        this.pointed = -1;
        this.lay();
        this.show();
      };
      show.addEventListener("change", arrange);
      order.addEventListener("change", arrange);
      this.zoom.addEventListener("input", () => this.resize(Number(this.zoom.value)));
      find("find").addEventListener("submit", (event) => {
        event.preventDefault();
        this.find(find("address").value.trim(), () => {
          show.value = "";
          order.value = "address";
          arrange();
        });
      });
      this.view.addEventListener("scroll", () => this.soon());
      this.view.addEventListener("pointermove", (event) => this.point(event));
      this.view.addEventListener("pointerleave", () => { this.pointed = -1; this.show(); });
      this.view.addEventListener("pointerdown", (event) => {
        this.point(event);
        if (this.pointed >= 0) this.chosen = this.pointed;
        this.show();
      });
      this.view.addEventListener("keydown", (event) => this.key(event));
      this.view.addEventListener("wheel", (event) => {
        if (!event.ctrlKey) return;
        event.preventDefault();
        this.resize(this.cell + (event.deltaY < 0 ? 1 : -1));
      }, { passive: false });
      document.addEventListener("recolour", () => { this.recolour(); this.draw(); });
      new ResizeObserver(() => this.lay()).observe(this.view);
      this.recolour();
    }

    // The colours as the style sheet has them in this theme.
    recolour() {
      const swatches = [...this.place.querySelectorAll("[data-colour]")];
      const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      this.palette = new Uint32Array(swatches.map((swatch) => {
        pen.fillStyle = getComputedStyle(swatch).backgroundColor;
        pen.fillRect(0, 0, 1, 1);
        return new Uint32Array(pen.getImageData(0, 0, 1, 1).data.buffer)[0];
      }));
      this.ground = getComputedStyle(this.view).backgroundColor;
      this.ink = getComputedStyle(document.body).color;
    }

    get height() { return this.view.clientHeight; }

    // How many cells a row has, and how tall all rows are.
    lay() {
      const width = this.view.clientWidth;
      if (!width) return;
      if (!this.cell) {
        this.cell = FIRST;
        const tall = () => Math.ceil(this.rows.length / Math.floor(width / this.cell)) * this.cell;
        while (this.cell > 3 && tall() > this.height) this.cell -= 1;
        this.zoom.value = this.cell;
        this.view.style.height = `${Math.max(LOWEST, Math.min(this.height, tall())) + 2}px`;
      }
      const scale = devicePixelRatio || 1;
      this.across = Math.max(1, Math.floor(width / this.cell));
      const rows = Math.ceil(this.rows.length / this.across);
      this.space.style.height = `${Math.max(0, rows * this.cell - this.height)}px`;
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(this.height * scale);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${this.height}px`;
      this.pen.setTransform(scale, 0, 0, scale, 0, 0);
      this.view.dataset.across = this.across;
      this.view.dataset.cell = this.cell;
      this.draw();
    }

    resize(cell) {
      const held = this.chosen >= 0 ? this.chosen
        : Math.floor(this.view.scrollTop / this.cell) * this.across;
      this.cell = Math.min(LARGEST, Math.max(SMALLEST, cell));
      this.zoom.value = this.cell;
      this.lay();
      this.reach(held);
    }

    soon() {
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => { this.waiting = false; this.draw(); });
    }

    draw() {
      if (!this.cell) return;
      const { cell, across, rows, pen, cells } = this;
      const top = Math.floor(this.view.scrollTop / cell);
      const lines = Math.ceil(this.height / cell) + 1;
      const image = new ImageData(across, lines);
      const pixels = new Uint32Array(image.data.buffer);
      const first = top * across;
      const last = Math.min(rows.length, first + pixels.length);
      for (let i = first; i < last; i += 1) pixels[i - first] = this.palette[cells.colour[rows[i]]];
      this.buffer.width = across;
      this.buffer.height = lines;
      this.buffer.getContext("2d").putImageData(image, 0, 0);
      const down = top * cell - this.view.scrollTop;
      pen.fillStyle = this.ground;
      pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(this.buffer, 0, down, across * cell, lines * cell);
      if (cell >= GRID) {
        const gap = cell >= 8 ? 1 : 0.5;
        for (let x = 1; x <= across; x += 1) pen.fillRect(x * cell - gap, 0, gap, this.height);
        for (let y = 1; y <= lines; y += 1) pen.fillRect(0, y * cell - gap + down, across * cell, gap);
      }
      for (const [place, wide] of [[this.chosen, 2], [this.pointed, 1.5]]) {
        if (place < 0) continue;
        const x = (place % across) * cell, y = Math.floor(place / across) * cell - this.view.scrollTop;
        pen.strokeStyle = this.ink;
        pen.lineWidth = wide;
        pen.strokeRect(x - 1, y - 1, cell + 1, cell + 1);
      }
    }

    point(event) {
      const box = this.canvas.getBoundingClientRect();
      const column = Math.floor((event.clientX - box.left) / this.cell);
      const line = Math.floor((event.clientY - box.top + this.view.scrollTop) / this.cell);
      const place = line * this.across + column;
      this.pointed = column >= 0 && column < this.across && place < this.rows.length ? place : -1;
      this.show();
    }

    // Scroll until a cell is in view.
    reach(place) {
      const y = Math.floor(place / this.across) * this.cell;
      if (y < this.view.scrollTop) this.view.scrollTop = y;
      else if (y + this.cell > this.view.scrollTop + this.height) {
        this.view.scrollTop = y + this.cell - this.height;
      }
      this.soon();
    }

    choose(place) {
      this.chosen = Math.min(this.rows.length - 1, Math.max(0, place));
      this.pointed = -1;
      this.reach(this.chosen);
      const told = this.show();
      if (told) {
        this.live.textContent = `${told.address}, ${told.what}, arena ${told.arena}, ${told.bytes}` +
          (told.live === "–" ? "" : `: ${told.live} live, ${told.cached} cached, ${told.free} free`) +
          (told.pinners === "–" ? "" : `, pinned by ${told.pinners}`);
      }
    }

    show() {
      const place = this.pointed >= 0 ? this.pointed : this.chosen;
      const told = place >= 0 && place < this.rows.length ? this.cells.tell(this.rows[place]) : null;
      for (const box of this.place.querySelectorAll("[data-of]")) {
        box.textContent = told ? told[box.dataset.of] : "–";
      }
      this.soon();
      return told;
    }

    key(event) {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const screen = this.across * Math.max(1, Math.floor(this.height / this.cell) - 1);
      const steps = {
        ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.across, ArrowDown: this.across,
        PageUp: -screen, PageDown: screen, Home: -Infinity, End: Infinity,
      };
      if (event.key === "+" || event.key === "=") this.resize(this.cell + 1);
      else if (event.key === "-") this.resize(this.cell - 1);
      else if (event.key in steps) {
        if (!this.rows.length) return;
        const begun = this.chosen >= 0 || event.key === "End";
        this.choose(begun ? this.chosen + steps[event.key] : 0);
      } else return;
      event.preventDefault();
    }

    find(text, showAll) {
      let found = -1;
      if (/^(0x)?[0-9a-f]+$/i.test(text)) {
        found = this.cells.at(BigInt(text.toLowerCase().startsWith("0x") ? text : `0x${text}`));
      }
      if (found < 0) {
        this.said.textContent = `No slab or extent of jemalloc's holds ${text || "that"}.`;
        this.live.textContent = this.said.textContent;
        return;
      }
      if (this.rows.indexOf(found) < 0) showAll();
      this.said.textContent = `${text} lies in the marked cell.`;
      this.choose(this.rows.indexOf(found));
    }
  }

  const begin = async (place) => {
    const told = JSON.parse(place.querySelector("[data-cells]").textContent);
    try {
      new HeatMap(place, new Cells(told, await unpack(told.packed)));
      place.dataset.ready = "";
    } catch (error) {
      place.querySelector("[data-said]").textContent =
        `This browser cannot draw the map (${error.message}); the tables above tell the same.`;
    }
  };
  for (const place of document.querySelectorAll("[data-map]")) begin(place);
}
