// Who is signed in, and the dialog to do so.

import * as api from "./api.js";
import { h, say } from "./dom.js";

/** The signed-in state; `changed` is called whenever it may have changed. */
export function makeSession(button, changed) {
  let known = null;

  async function look() {
    try {
      known = await api.session();
    } catch {
      // The views say that the server is away; what was known stays.
    }
    show();
    return known;
  }

  function show() {
    if (known === null) return;
    button.hidden = false;
    button.textContent = known.signed_in ? "Sign out" : "Sign in";
  }

  async function signOut() {
    try {
      await api.signOut();
      say("Signed out.");
    } catch (error) {
      say(`Signing out did not work: ${error.message}`);
    }
    await look();
    changed();
  }

  function open() {
    const dialog = known?.token_configured === false ? explaining() : asking();
    document.body.append(dialog);
    dialog.addEventListener("close", () => dialog.remove());
    dialog.showModal();
  }

  function asking() {
    const input = h("input", { id: "token", name: "token", type: "password", autocomplete: "current-password", required: true });
    const wrong = h("p", { class: "wrong", role: "alert" });
    const submit = h("button", { type: "submit", class: "main" }, "Sign in");
    const dialog = h(
      "dialog",
      { "aria-labelledby": "sign-in-title" },
      h(
        "form",
        {
          on: {
            submit: async (event) => {
              event.preventDefault();
              submit.disabled = true;
              wrong.textContent = "";
              try {
                await api.signIn(input.value);
                await look();
                dialog.close();
                say("Signed in.");
                changed();
              } catch (error) {
                wrong.textContent = whyNot(error);
                input.select();
              }
              submit.disabled = false;
            },
          },
        },
        h("h2", { id: "sign-in-title" }, "Sign in"),
        h("p", null, "With the token that the receiver's configuration names in ", h("code", null, "admin.token_file"), "."),
        h("label", { for: "token" }, "Token"),
        input,
        wrong,
        h("div", { class: "actions" }, h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"), submit),
      ),
    );
    return dialog;
  }

  function explaining() {
    const dialog = h(
      "dialog",
      { "aria-labelledby": "sign-in-title" },
      h("h2", { id: "sign-in-title" }, "Signing in is not turned on"),
      turnOn(),
      h("div", { class: "actions" }, h("button", { type: "button", class: "main", on: { click: () => dialog.close() } }, "Close")),
    );
    return dialog;
  }

  button.addEventListener("click", () => (known?.signed_in ? signOut() : open()));

  return {
    look,
    get known() {
      return known;
    },
    /** What helps somebody who is not signed in: a button, or how signing in is turned on. */
    signInHelp() {
      if (known?.token_configured === false) return turnOn();
      return h("button", { type: "button", class: "main", on: { click: open } }, "Sign in");
    },
  };
}

function whyNot(error) {
  if (error.status === 401) return "That is not the token.";
  if (error.status === 429) return "Too many attempts: wait a minute, then try again.";
  return error.message;
}

/** How signing in, and with it replaying, is turned on. */
function turnOn() {
  return h(
    "div",
    { class: "how" },
    h("p", null, "No token is configured, so nobody can sign in or replay from here. To turn it on:"),
    h(
      "ol",
      null,
      h("li", null, "Write a token of your own into a file that only the receiver can read: ", h("pre", null, "(umask 077; openssl rand -base64 32 > /run/secrets/admin-token)")),
      h("li", null, "Name it in the receiver's configuration: ", h("pre", null, '[admin]\ntoken_file = "/run/secrets/admin-token"')),
      h("li", null, "Restart the receiver, reload this page, and sign in with what the file says."),
    ),
    h("p", null, "Until then the command line replays: ", h("code", null, "stripe-ingest dead-letter replay"), ", ", h("code", null, "stripe-ingest quarantine replay"), "."),
  );
}
