// The page of the service: each tab sends a recording to a path of the service and shows the answer.

const $ = (selector, within = document) => within.querySelector(selector);
const notice = $("#notice");
const TASKS = {
  transcribe: { label: "Transcribe", tasks: ["recognition", "streaming"], files: ["file"] },
  live: { label: "Live", tasks: ["streaming", "keywords"], files: [] },
  separate: { label: "Separate", tasks: ["separation"], files: ["file"] },
  verify: { label: "Compare voices", tasks: ["speaker"], files: ["first", "second"] },
  spot: { label: "Spot keywords", tasks: ["keywords"], files: ["file"] },
};
const RATE = 16000;

function say(text, fault = false) {
  notice.textContent = text;
  notice.classList.toggle("fault", fault);
}

function headers() {
  const key = $("#key").value;
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// The answer of a path; a fault is thrown with the service's own sentence.
async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: headers() });
  if (answer.ok) return answer;
  $(".key").hidden = $(".key").hidden && answer.status !== 401;
  const body = await answer.json().catch(() => ({}));
  throw new Error(body.error?.message ?? `the service answered ${answer.status}`);
}

// --- recordings: a file, or the microphone ---

class Microphone {
  async start(hear) {
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    this.context = new AudioContext({ sampleRate: RATE });
    await this.context.audioWorklet.addModule("page/recorder.js");
    this.node = new AudioWorkletNode(this.context, "recorder");
    this.node.port.onmessage = (event) => hear(event.data);
    this.context.createMediaStreamSource(this.stream).connect(this.node);
  }

  async stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    await this.context?.close();
    this.stream = this.context = null;
  }
}

function pcm(samples) {
  return Int16Array.from(samples, (one) => Math.round(32767 * Math.max(-1, Math.min(1, one))));
}

function wav(samples) {
  const data = pcm(samples);
  const view = new DataView(new ArrayBuffer(44 + data.byteLength));
  const text = (at, letters) => [...letters].forEach((one, i) => view.setUint8(at + i, one.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + data.byteLength, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true); view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, data.byteLength, true);
  data.forEach((one, i) => view.setInt16(44 + 2 * i, one, true));
  return new Blob([view], { type: "audio/wav" });
}

// A field that takes a file or records one; `changed` gets the recording.
function recordingField(label, changed) {
  const field = document.createElement("fieldset");
  field.innerHTML = `<legend></legend><input type="file" accept="audio/*,video/*">
    <button type="button">Record</button><audio controls hidden></audio>`;
  $("legend", field).textContent = label;
  const button = $("button", field);
  const player = $("audio", field);
  $("input", field).setAttribute("aria-label", label);
  const show = (blob) => {
    URL.revokeObjectURL(player.src);
    player.src = URL.createObjectURL(blob);
    player.hidden = false;
    changed(blob);
  };
  $("input", field).onchange = (event) => event.target.files[0] && show(event.target.files[0]);
  let microphone = null;
  let pieces = [];
  button.onclick = async () => {
    if (microphone) {
      await microphone.stop();
      microphone = null;
      button.textContent = "Record";
      const whole = new Float32Array(pieces.reduce((sum, one) => sum + one.length, 0));
      pieces.reduce((at, one) => (whole.set(one, at), at + one.length), 0);
      show(wav(whole));
      return;
    }
    pieces = [];
    const fresh = new Microphone();
    try {
      await fresh.start((piece) => pieces.push(piece));
    } catch (error) {
      await fresh.stop();
      return say(`The microphone cannot be used: ${error.message}`, true);
    }
    microphone = fresh;
    button.textContent = "Stop";
  };
  return field;
}

// --- tasks ---

async function send(task, recordings, fields = {}) {
  const form = new FormData();
  for (const [name, blob] of Object.entries(recordings)) form.append(name, blob, "recording");
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  say("Waiting for the answer.");
  const answer = await ask(task, { method: "POST", body: form });
  say("");
  return answer;
}

function rows(table, lines) {
  const body = $("tbody", table);
  body.replaceChildren(...lines.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((cell) => Object.assign(document.createElement("td"), { textContent: cell })));
    return row;
  }));
  table.hidden = lines.length === 0;
}

const SHOW = {
  async transcribe(section, recordings) {
    const answer = await (await send("transcribe", recordings, { word_times: true })).json();
    $(".text", section).textContent = answer.text || "No words were heard.";
    rows($("table", section), (answer.words ?? []).map((one) => [
      one.word, one.start.toFixed(2), one.end.toFixed(2), one.confidence.toFixed(2)]));
  },

  async separate(section, recordings) {
    const places = $(".sources", section);
    places.replaceChildren();
    const archive = await (await send("separate", recordings)).arrayBuffer();
    for (const [name, blob] of unzip(archive)) {
      const figure = document.createElement("figure");
      figure.innerHTML = "<figcaption></figcaption><canvas></canvas><audio controls></audio>";
      $("figcaption", figure).textContent = name.replace(/^speaker(\d+).*/, "Speaker $1");
      $("audio", figure).src = URL.createObjectURL(blob);
      places.append(figure);
      await spectrogram($("canvas", figure), blob);
    }
  },

  async verify(section, recordings) {
    const answer = await (await send("verify", recordings)).json();
    const score = answer.score.toFixed(2);
    const limit = answer.threshold;
    $(".text", section).textContent = answer.same === null ? `Score ${score}`
      : answer.same ? "The same speaker" : "Two speakers";
    $("meter", section).value = answer.score;
    $(".score p", section).textContent = limit === null ? "This model has no threshold."
      : `Score ${score}, threshold ${limit.toFixed(2)}.`;
    $(".score", section).hidden = false;
  },

  async spot(section, recordings) {
    const threshold = $(".threshold", section).value;
    const answer = await (await send("spot", recordings, { threshold })).json();
    const line = $(".line", section);
    line.hidden = false;
    line.replaceChildren(...answer.events.map((one) => {
      const mark = Object.assign(document.createElement("span"), { textContent: one.label });
      mark.style.left = `${(100 * one.start) / answer.seconds}%`;
      mark.style.width = `${(100 * (one.end - one.start)) / answer.seconds}%`;
      return mark;
    }));
    $(".events", section).replaceChildren(...answer.events.map(eventItem));
    if (!answer.events.length) say("No keyword was heard.");
  },
};

// Names and contents of a ZIP file that holds WAV files uncompressed, as the service writes it.
function unzip(buffer) {
  const view = new DataView(buffer);
  const files = [];
  for (let at = 0; view.getUint32(at, true) === 0x04034b50;) {
    const size = view.getUint32(at + 18, true);
    const name = view.getUint16(at + 26, true);
    const start = at + 30 + name + view.getUint16(at + 28, true);
    const letters = new TextDecoder().decode(new Uint8Array(buffer, at + 30, name));
    files.push([letters, new Blob([buffer.slice(start, start + size)], { type: "audio/wav" })]);
    at = start + size;
  }
  return files;
}

function eventItem(one) {
  const text = `${one.label}: ${one.start.toFixed(2)} to ${one.end.toFixed(2)} s, confidence ${one.confidence.toFixed(2)}`;
  return Object.assign(document.createElement("li"), { textContent: text });
}

// Magnitudes of short Fourier transforms, a column a pixel, by direct sums.
async function spectrogram(canvas, blob) {
  const context = new OfflineAudioContext(1, 1, RATE);
  const sound = (await context.decodeAudioData(await blob.arrayBuffer())).getChannelData(0);
  const width = 320;
  const bands = 96;
  const length = 256;
  canvas.width = width;
  canvas.height = bands;
  const paint = canvas.getContext("2d");
  const image = paint.createImageData(width, bands);
  for (let x = 0; x < width; x += 1) {
    const at = Math.floor((x * Math.max(0, sound.length - length)) / width);
    for (let band = 0; band < bands; band += 1) {
      const step = (Math.PI * (band + 1)) / bands;
      let real = 0;
      let imaginary = 0;
      for (let i = 0; i < length; i += 1) {
        const value = (sound[at + i] ?? 0) * (0.5 - 0.5 * Math.cos((2 * Math.PI * i) / length));
        real += value * Math.cos(step * i);
        imaginary += value * Math.sin(step * i);
      }
      const level = Math.max(0, 1 + Math.log10(1e-6 + Math.hypot(real, imaginary)) / 3);
      const pixel = 4 * ((bands - 1 - band) * width + x);
      // from dark violet to yellow, as viridis goes
      image.data.set([255 * level ** 2, 230 * level, 90 + 60 * level - 120 * level ** 3, 255], pixel);
    }
  }
  paint.putImageData(image, 0, 0);
}

// --- live ---

function live(section, models) {
  const select = $("select", section);
  select.replaceChildren(...models.map((one) => new Option(one.name, one.name)));
  const button = $("#listen");
  const final = $(".final", section);
  const partial = $(".partial", section);
  let microphone = null;
  let socket = null;

  async function end() {
    button.textContent = "Start";
    await microphone?.stop();
    microphone = null;
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "end" }));
    socket = null;
  }

  const news = {
    partial: (message) => { partial.textContent = message.text; },
    final: (message) => { final.textContent += ` ${message.text}`; partial.textContent = ""; },
    endpoint: () => { final.textContent += "\n"; },
    keyword: (message) => $(".events", section).prepend(eventItem(message)),
    error: (message) => { say(message.message, true); end(); },
  };

  button.onclick = async () => {
    if (microphone) return end();
    final.textContent = partial.textContent = "";
    $(".events", section).replaceChildren();
    say("");
    const url = new URL("stream", location.href.replace(/^http/, "ws"));
    const fresh = new WebSocket(url);
    fresh.onopen = () => fresh.send(JSON.stringify({
      type: "start", model: select.value, sample_rate: RATE, api_key: $("#key").value || undefined }));
    fresh.onmessage = (event) => {
      const message = JSON.parse(event.data);
      news[message.type]?.(message);
    };
    fresh.onclose = () => { if (socket === fresh) end(); };
    socket = fresh;
    microphone = new Microphone();
    button.textContent = "Stop";
    try {
      await microphone.start((piece) => {
        if (fresh.readyState === WebSocket.OPEN) fresh.send(pcm(piece).buffer);
      });
    } catch (error) {
      say(`The microphone cannot be used: ${error.message}`, true);
      await end();
    }
  };
}

// --- the page ---

function choose(name) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.dataset.task === name;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    $(`#${tab.dataset.task}`).hidden = !chosen;
  }
  say("");
}

function prepare(name, models) {
  const task = TASKS[name];
  const section = $(`#${name}`);
  if (name === "live") live(section, models);
  const recordings = {};
  $(".inputs", section)?.replaceChildren();
  for (const file of task.files) {
    const label = { first: "First voice", second: "Second voice" }[file] ?? "Recording";
    $(".inputs", section).append(recordingField(label, async (blob) => {
      recordings[file] = blob;
      if (task.files.some((one) => !recordings[one])) return;
      try {
        await SHOW[name](section, recordings);
      } catch (error) {
        say(error.message, true);
      }
    }));
  }
  const slider = $(".threshold", section);
  if (slider) slider.oninput = () => { $("output", section).textContent = slider.value; };
  const tab = document.createElement("button");
  Object.assign(tab, { type: "button", textContent: task.label, onclick: () => choose(name) });
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", name);
  tab.dataset.task = name;
  $("#tabs").append(tab);
}

$("#tabs").onkeydown = (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
  next.focus();
  next.click();
};

async function begin() {
  try {
    const { models } = await (await ask("models")).json();
    $("#tabs").replaceChildren();
    for (const name of Object.keys(TASKS)) {
      const fitting = models.filter((one) => TASKS[name].tasks.includes(one.task));
      if (fitting.length) prepare(name, fitting);
    }
    choose($("[role=tab]").dataset.task);
  } catch (error) {
    say(error.message, true);
  }
}

$("#key").onchange = begin;
begin();
