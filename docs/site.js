// Search in pages that are opened as files: browsers start no worker there, so a hidden frame takes its place.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.addEventListener("DOMContentLoaded", () => this.load(frame, url), { once: true });
      if (document.readyState !== "loading") this.load(frame, url);
    }
    load(frame, url) {
      if (this.frame) return;
      document.body.append((this.frame = frame));
      const inside = frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = inside.document.createElement("script");
      script.src = url;
      script.onload = () => {
        this.postMessage = (data) => inside.dispatchEvent(new MessageEvent("message", { data }));
        this.waiting.forEach((data) => this.postMessage(data));
      };
      inside.document.head.append(script);
    }
    postMessage(data) {
      this.waiting.push(data);
    }
    terminate() {
      this.frame?.remove();
    }
  };
}
