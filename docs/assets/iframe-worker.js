// Browsers start no Worker in pages opened from a folder. There, its script runs in a hidden frame instead.
if (location.protocol === "file:") {
  const deliver = (target, data) => setTimeout(() => target.dispatchEvent(new MessageEvent("message", { data })));

  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.addEventListener("message", (event) => this.onmessage && this.onmessage(event));
      this.frame = document.body.appendChild(document.createElement("iframe"));
      this.frame.hidden = true;
      const inner = this.frame.contentWindow;
      inner.postMessage = (data) => deliver(this, structuredClone(data));
      this.ready = new Promise((resolve) => {
        const script = inner.document.createElement("script");
        script.src = url;
        script.onload = resolve;
        script.onerror = (event) => this.onerror && this.onerror(event);
        inner.document.body.append(script);
      });
    }

    postMessage(data) {
      const copy = structuredClone(data);
      this.ready.then(() => deliver(this.frame.contentWindow, copy));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
