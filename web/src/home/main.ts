// The front page: a playback link goes to the player in the fragment, which browsers never send to a server.

const form = document.querySelector<HTMLFormElement>("#open");

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const link = String(new FormData(form).get("link") ?? "").trim();
  if (link) location.assign(`/watch/#${link}`);
});
