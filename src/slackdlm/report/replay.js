"use strict";
(() => {
  const data = document.getElementById("scenes");
  const player = document.getElementById("player");
  if (!data || !player) return;
  const scenes = JSON.parse(data.textContent);
  const states = ["masked", "token", "slack", "end", "displaced", "substituted"];
  const find = (name) => player.querySelector(`[data-role="${name}"]`);
  const [pick, slider, play, back, next, stage, status, prompt] = [
    "scene", "step", "play", "back", "next", "stage", "status", "prompt",
  ].map(find);
  let timer = null;

  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const cell = ([text, state, fresh]) => {
    const node = make("span", `cell ${states[state]}${fresh ? " new" : ""}`);
    node.append(text === "" ? make("span", "blank", "\u00a0") : make("bdi", "", text));
    if (state === 0) node.setAttribute("aria-label", "masked");
    return node;
  };
  const last = () => Number(slider.max);
  const draw = () => {
    const scene = scenes[pick.value];
    const place = Number(slider.value);
    stage.replaceChildren(...scene.tracks.map((track) => {
      const at = Math.min(place, track.frames.length - 1);
      const frame = track.frames[at];
      const box = make("section", "track");
      const done = at === track.frames.length - 1;
      const head = make("h4", "", track.label);
      head.append(make("small", "", ` step ${frame.step}${done ? ", done" : ""}`));
      const canvas = make("div", "canvas");
      canvas.append(...frame.cells.map(cell));
      box.append(head, canvas);
      const answer = make("p", "answer", done ? track.text : "\u00a0");
      answer.dir = "auto";
      box.append(answer);
      return box;
    }));
    status.textContent = `frame ${place} of ${last()}`;
    slider.setAttribute("aria-valuetext", status.textContent);
    back.disabled = place === 0;
    next.disabled = place === last();
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  const go = (place) => {
    slider.value = Math.max(0, Math.min(last(), place));
    draw();
  };
  const choose = () => {
    stop();
    const scene = scenes[pick.value];
    prompt.textContent = scene.prompt;
    slider.max = Math.max(...scene.tracks.map((track) => track.frames.length)) - 1;
    go(Math.floor(last() / 2));
  };
  pick.addEventListener("change", choose);
  slider.addEventListener("input", () => { stop(); draw(); });
  back.addEventListener("click", () => { stop(); go(Number(slider.value) - 1); });
  next.addEventListener("click", () => { stop(); go(Number(slider.value) + 1); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === last()) go(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      go(Number(slider.value) + 1);
      if (Number(slider.value) === last()) stop();
    }, 600);
  });
  player.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || event.target === slider || event.target === pick) return;
    event.preventDefault();
    stop();
    go(Number(slider.value) + move);
  });
  window.addEventListener("beforeprint", () => {
    stop();
    document.querySelectorAll("details").forEach((node) => { node.open = true; });
  });
  scenes.forEach((scene, place) => {
    const option = make("option", "", `${scene.title}: ${scene.prompt}`);
    option.value = place;
    pick.append(option);
  });
  player.classList.add("live");
  choose();
})();
