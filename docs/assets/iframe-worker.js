// A Worker for pages opened from the disk, where browsers allow none: a hidden frame does its work.
// The theme's search asks for it; its own comes from a CDN, which is not there on a closed network.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inside = this.frame.contentWindow;
      inside.document.open();
      inside.document.write(
        "<!doctype html><body><script>" +
          "postMessage = data => parent.postMessage({ fromWorker: data }, '*');" +
          "importScripts = (...urls) => urls.reduce((done, url) => done.then(() => new Promise((ok, no) => {" +
          "const script = document.createElement('script'); script.src = url; script.onload = ok;" +
          "script.onerror = no; document.body.appendChild(script) })), Promise.resolve())" +
          "</" + "script><script src='" + url + "'></" + "script></body>"
      );
      this.ready = new Promise(done => inside.addEventListener("load", done));
      inside.document.close();
      window.addEventListener("message", event => {
        if (event.source !== inside || !event.data || !("fromWorker" in event.data)) return;
        const message = new MessageEvent("message", { data: event.data.fromWorker });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      });
    }
    postMessage(data) {
      const inside = this.frame.contentWindow;
      this.ready.then(() => inside.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
