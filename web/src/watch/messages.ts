// What a learner reads when the film can't play: each code of the edge and the origin in plain words. Pure.

import type { Problem } from "../common/api";

export interface Message {
  title: string;
  text: string;
  /** What the button under it does, if anything helps. */
  action: "retry" | "login" | null;
}

const gone: Message = {
  title: "This link has ended",
  text: "Playback links are good for a limited time. Open the lesson again from your course to go on where you stopped.",
  action: null,
};

const broken: Message = {
  title: "This link doesn't work",
  text: "It was changed or cut short on its way here. Open the lesson again from your course, or copy the whole link.",
  action: null,
};

const known: Record<string, Message> = {
  token_missing: {
    title: "This lesson needs a playback link",
    text: "Open it from your course: the link there carries your permission to watch.",
    action: null,
  },
  token_malformed: broken,
  token_bad_signature: broken,
  token_unsupported_claim: broken,
  token_unknown_key: {
    title: "This link is no longer accepted",
    text: "It was made with a key that is not in use. Open the lesson again from your course.",
    action: null,
  },
  token_wrong_issuer: broken,
  token_wrong_audience: broken,
  token_expired: gone,
  token_not_yet_valid: {
    title: "It is too early for this link",
    text: "It starts to work at a later time. If it should work now, check that this device's clock is right.",
    action: "retry",
  },
  token_wrong_client: {
    title: "This link belongs to another device or network",
    text: "Open the lesson from your course on the device you want to watch on.",
    action: null,
  },
  token_out_of_scope: {
    title: "This link is for something else",
    text: "It does not cover this lesson. Open the lesson from the course you bought.",
    action: null,
  },
  token_revoked: {
    title: "Playback was ended",
    text: "Access to this lesson was taken back, or the lesson is being watched elsewhere. If that is a mistake, ask your course's support.",
    action: null,
  },
  session_revoked: {
    title: "Playback was ended",
    text: "This viewing was closed, perhaps because the lesson was opened elsewhere. Try again to open it anew.",
    action: "retry",
  },
  too_many_streams: {
    title: "Your account is watching on too many devices",
    text: "Stop playback on one of them, wait a few seconds and try again.",
    action: "retry",
  },
  not_entitled: {
    title: "This lesson isn't part of your courses",
    text: "Once you have bought the course it will play here.",
    action: "retry",
  },
  not_playable: {
    title: "This lesson isn't ready yet",
    text: "Its recording is still being prepared. Try again in a little while.",
    action: "retry",
  },
  not_ready: {
    title: "This lesson isn't ready yet",
    text: "Its recording is still being prepared. Try again in a little while.",
    action: "retry",
  },
  network: {
    title: "No connection",
    text: "The video can't be reached. Playback goes on by itself as soon as the connection is back.",
    action: "retry",
  },
  media: {
    title: "This browser can't play the video",
    text: "The film arrived, but could not be decoded. Reload the page, or try another browser.",
    action: "retry",
  },
  unsupported: {
    title: "This browser is too old for the player",
    text: "It lacks Media Source Extensions. A current Chrome, Edge, Firefox or Safari plays the lesson.",
    action: null,
  },
  bad_link: {
    title: "This is no playback link",
    text: "A link looks like https://…/v/…/master.m3u8. Open the lesson from your course, or copy the whole link.",
    action: null,
  },
  no_link: {
    title: "Nothing to play yet",
    text: "Open a lesson from your course, or paste its playback link on the front page.",
    action: null,
  },
};

/** The words for a failure. A code that is not known here keeps the server's own sentence. */
export function explain(problem: Problem): Message {
  const message = known[problem.code];
  if (message) return message;
  if (problem.status === 401) {
    return { title: "Please log in", text: "Watching this lesson needs you to be logged in.", action: "login" };
  }
  if (problem.status === 404) {
    return { title: "There is no such lesson", text: "It may have been removed. Look for it in your course.", action: null };
  }
  if (problem.status === 403) return { title: "You can't watch this lesson", text: problem.detail, action: null };
  if (problem.status === 409) return { title: "Not just now", text: problem.detail, action: "retry" };
  return { title: "The lesson can't be played at the moment", text: problem.detail, action: "retry" };
}
