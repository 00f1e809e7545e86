// What Vue and trame do not do by themselves: files in and out, dropping them on the page, and keys.
(() => {
  const trigger = (name, ...values) => window.trame.trigger(name, values);
  const set = (name, value) => window.trame.state.set(name, value);
  const get = (name) => window.trame.state.get(name);

  // Files.

  let sending = false;

  function send(files) {
    files = files.filter(({ name }) => !name.split("/").pop().startsWith("."));
    if (sending || !files.length) return;
    const size = files.reduce((sum, { file }) => sum + file.size, 0);
    const limit = get("upload_limit");
    if (size > limit) {
      const megabytes = (bytes) => Math.round(bytes / 1e6).toLocaleString("en-US");
      trigger("tell", "error", `These files are ${megabytes(size)} MB large, and this viewer takes ` +
        `${megabytes(limit)} MB at once: choose one scan, or crop it first.`);
      return;
    }
    const form = new FormData();
    for (const { name, file } of files) form.append("file", file, name);
    const what = files.length === 1 ? files[0].file.name : `${files.length} files`;
    const request = new XMLHttpRequest();
    const done = () => { sending = false; set("upload", null); };
    sending = true;
    set("upload", { text: `Sending ${what}...`, percent: 0 });
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) {
        set("upload", { text: `Sending ${what}...`, percent: Math.round((100 * event.loaded) / event.total) });
      }
    };
    request.onload = () => {
      done();
      if (request.status >= 400) {
        let text = "The files could not be sent.";
        try { text = JSON.parse(request.responseText).error || text; } catch { /* not ours */ }
        trigger("tell", "error", text);
      }
    };
    request.onerror = () => {
      done();
      trigger("tell", "error", "The files did not arrive: is the viewer still running?");
    };
    request.open("POST", "upload");
    request.send(form);
  }

  async function entriesOf(items) {
    const entries = [...items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
    const found = [];
    async function walk(entry) {
      if (entry.isFile) {
        const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
        found.push({ name: entry.fullPath.replace(/^\//, ""), file });
        return;
      }
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!some.length) break;
        for (const one of some) await walk(one);
      }
    }
    for (const entry of entries) await walk(entry);
    return found;
  }

  document.addEventListener("change", (event) => {
    if (event.target.id !== "bonesam-files" && event.target.id !== "bonesam-folder") return;
    send([...event.target.files].map((file) => ({ name: file.webkitRelativePath || file.name, file })));
    event.target.value = "";
  });

  const holdsFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  let depth = 0;
  document.addEventListener("dragenter", (event) => {
    if (holdsFiles(event) && depth++ === 0) set("drop", true);
  });
  document.addEventListener("dragleave", (event) => {
    if (holdsFiles(event) && --depth <= 0) { depth = 0; set("drop", false); }
  });
  document.addEventListener("dragover", (event) => {
    if (holdsFiles(event)) event.preventDefault();
  });
  document.addEventListener("drop", async (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    depth = 0;
    set("drop", false);
    send(await entriesOf(event.dataTransfer.items));
  });

  function open(what) {
    document.getElementById(`bonesam-${what}`).click();
  }

  async function download(ending) {
    const address = await trigger("download", ending);
    if (!address) return;
    const link = document.createElement("a");
    link.href = address;
    link.download = "";
    link.click();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.open) open(button.dataset.open);
    if (button.dataset.download) download(button.dataset.download);
    // Else Space and Enter would press it again while the mouse is in a view.
    if (event.detail > 0) button.blur();
  });

  // Where the mouse is, in the patient.

  document.addEventListener("pointermove", (event) => {
    const view = event.target.closest?.("[data-view]");
    const slice = view && get(`slice_${view.dataset.view}`);
    const place = document.getElementById("bonesam-place");
    if (!place) return;
    if (!slice?.to_ras || !get("scan")) { place.textContent = ""; return; }
    const area = (view.querySelector("img") || view).getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * slice.size[0];
    const y = (1 - (event.clientY - area.top) / area.height) * slice.size[1];
    place.textContent = slice.to_ras.map(([a, b, c], axis) => {
      const millimeters = a * x + b * y + c;
      return `${(millimeters < 0 ? "LPI" : "RAS")[axis]} ${Math.abs(millimeters).toFixed(1)}`;
    }).join("   ") + " mm";
  });

  // Keys press buttons: one that is disabled ignores them.

  const press = (act) => () => document.querySelector(`[data-act="${act}"]`)?.click();
  const KEYS = {
    b: press("box"),
    "shift+b": press("slice_box"),
    p: press("positive_point"),
    n: press("negative_point"),
    l: () => document.querySelector('[data-test="live"]')?.click(),
    s: press("segment"),
    "ctrl+z": press("undo"),
    "ctrl+y": press("redo"),
    "ctrl+shift+z": press("redo"),
    c: press("cancel"),
    a: press("accept"),
    "shift+a": press("next_bone"),
    w: press("adjust_window"),
    r: press("fit"),
    o: () => open("files"),
    escape: () => { set("help", false); trigger("use", ""); },
    "?": () => set("help", true),
    "shift+?": () => set("help", true),
  };

  function isTyping(target) {
    return target.matches?.("textarea, select, [contenteditable], input:not([type=range]):not([type=checkbox]):not([type=color])");
  }

  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.altKey || (isTyping(event.target) && event.key !== "Escape")) return;
    const keys = [
      ...(event.ctrlKey || event.metaKey ? ["ctrl"] : []),
      ...(event.shiftKey ? ["shift"] : []),
      event.key.toLowerCase(),
    ].join("+");
    const act = KEYS[keys];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    if (isTyping(event.target)) event.target.blur();
    act();
  }, true);
})();
