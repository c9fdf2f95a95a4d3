// Runs the cells of a page with Brython, in a worker, when a reader asks for it.
(() => {
  const MOST_OUTPUT = 20000;
  const here = document.currentScript.src;

  // In the worker: Brython, then this. What a cell prints goes to the page, piece by piece.
  const PRELUDE = `
import sys
from browser import self as _worker
class _Page:
    def write(self, text):
        _worker.postMessage({"text": str(text)})
        return len(text)
    def flush(self):
        pass
sys.stdout = sys.stderr = _Page()
`;
  const LISTENER = `
__BRYTHON__.runPythonSource(${JSON.stringify(PRELUDE)}, {name: "prelude"});
self.onmessage = (event) => {
  try { __BRYTHON__.runPythonSource(event.data, {name: "cell"}); } catch (error) {
    if (error instanceof Error) self.postMessage({text: String(error)});
  }
  self.postMessage({done: true});
};
self.postMessage({ready: true});
`;

  let sources = null;
  function load() {
    sources ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL("brython_sources.js", here).href;
      script.onload = () => resolve([
        // It asks where it was loaded from, and a blob is no address that it could take apart.
        "self.__BRYTHON__ = {brython_path: 'http://localhost/'};\n",
        ...self.brythonSources.map((source) => source + ";\n"),
        LISTENER,
      ]);
      script.onerror = () => { sources = null; script.remove(); reject(new Error("brython_sources.js was not found beside this page")); };
      document.head.append(script);
    });
    return sources;
  }

  // "in the cell, line 3" instead of the address of a blob.
  const readable = (text) => text.replace(/^ *File ".*?", line (\d+).*$/gm, "Line $1:");

  function enliven(cell) {
    const [code, run, reset, output] = ["code", "run", "reset", "output"].map((part) => cell.querySelector(`.try-${part}`));
    const original = code.value;
    let worker = null;
    cell.querySelector(".try-buttons").hidden = false;

    function finish(last = "") {
      worker?.terminate();
      worker = null;
      run.textContent = "Run";
      say(last);
      if (!output.textContent) output.textContent = "(It printed nothing.)";
    }
    function say(text) {
      output.textContent = readable(output.textContent + text);
    }
    async function start() {
      output.hidden = false;
      output.textContent = "Starting Python ...";
      run.textContent = "Stop";
      const mine = worker = { terminate() {} }; // so that Stop works while it loads
      let parts;
      try { parts = await load(); } catch (error) { if (worker === mine) { output.textContent = ""; finish(error.message); } return; }
      if (worker !== mine) return;
      const address = URL.createObjectURL(new Blob(parts, { type: "text/javascript" }));
      worker = new Worker(address);
      URL.revokeObjectURL(address);
      worker.onmessage = ({ data }) => {
        if (data.ready) { output.textContent = ""; worker.postMessage(code.value); }
        else if (data.done) finish();
        else if (output.textContent.length > MOST_OUTPUT) finish("\n(Stopped: that is more than a page can show.)");
        else say(data.text);
      };
      worker.onerror = (event) => { event.preventDefault(); finish(event.message); };
    }
    run.addEventListener("click", () => {
      if (worker) finish(output.textContent.startsWith("Starting") ? "\n(Stopped.)" : "(Stopped.)");
      else start();
    });
    reset.addEventListener("click", () => {
      code.value = original;
      code.focus();
    });
    code.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        if (!worker) start();
      }
    });
  }

  // The script stands before the page.
  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".try").forEach(enliven));
})();
