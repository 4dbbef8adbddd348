// Files dropped anywhere on a page or chosen with its button: sent one after another, with progress.

const token = document.querySelector("meta[name=csrf]").content;

const TOO_LARGE = { problem: "the file is too large" };

function send(file, progress) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("files", file, file.name);
    request.open("POST", "/upload");
    request.setRequestHeader("X-CSRF-Token", token);
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      const answer = request.response;
      if (request.status === 200) resolve(answer.files[0]);
      else if (request.status === 413) resolve(TOO_LARGE);
      else resolve({ problem: answer?.problem || `it was refused (${request.status})` });
    });
    request.addEventListener("error", () => resolve({ problem: "the viewer is out of reach" }));
    request.send(form);
  });
}

function entry(list, file) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  const bar = document.createElement("progress");
  name.textContent = file.name;
  bar.max = 1;
  bar.value = 0;
  bar.setAttribute("aria-label", file.name);
  item.append(name, " ", bar);
  item.dataset.state = "waiting";
  list.append(item);
  return { item, bar };
}

function answer({ item, bar }, result) {
  bar.remove();
  item.dataset.state = result.problem ? "problem" : "done";
  if (result.problem) {
    item.classList.add("problem");
    item.append(`cannot be taken: ${result.problem}`);
    return;
  }
  const link = document.createElement("a");
  link.href = `/case/${result.case}`;
  link.textContent = result.said;
  item.classList.add(result.kind);
  item.append(link);
  if (result.frames > 1) item.append(` (${result.frames} frames)`);
}

/** Make a page take files; `done` is called after each one that was taken. */
export function takeFiles(done = () => {}) {
  const form = document.querySelector("[data-upload]");
  const input = form.querySelector("input[type=file]");
  const list = form.querySelector(".sent");
  let queue = Promise.resolve();

  function take(files) {
    for (const file of files) {
      const shown = entry(list, file);
      queue = queue.then(async () => {
        shown.item.dataset.state = "sending";
        const result = file.size > form.dataset.largest ? TOO_LARGE : await send(file, (share) => {
          // Once all is sent the network works, for how long nobody knows.
          if (share < 1) shown.bar.value = share;
          else shown.bar.removeAttribute("value");
        });
        answer(shown, result);
        if (!result.problem) done(result);
      });
    }
    if (files.length) form.scrollIntoView({ block: "nearest" });
  }

  form.querySelector("[data-send]").hidden = true;
  form.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove("dropping");
    take([...event.dataTransfer.files]);
  });
}
