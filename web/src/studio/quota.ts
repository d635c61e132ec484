// How much of what a creator may keep is used; nothing is shown to those who have no bound.

import { call, type Me } from "../common/api";
import { h } from "../common/dom";
import { bytes } from "../common/format";

/** Changes come in bursts: so long after the first one (milliseconds) the server is asked once. */
const PAUSE = 500;

export class Quota {
  private readonly meter = h("meter", { min: 0, max: 1, high: 0.9, optimum: 0, "aria-labelledby": "quota" });
  private readonly line = h("p", { class: "small soft number", id: "quota" });
  readonly element = h("section", { class: "quota", "aria-label": "Storage", hidden: true }, this.meter, this.line);
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** Looks again, soon. */
  look(): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      call<Me>("GET", "/v1/me").then(({ uploads }) => this.show(uploads), () => {});
    }, PAUSE);
  }

  private show({ quota, used }: Me["uploads"]): void {
    this.element.hidden = quota === null || used === null;
    if (quota === null || used === null) return;
    this.meter.value = quota > 0 ? Math.min(1, used / quota) : 1;
    this.line.textContent = used >= quota ? `All of ${bytes(quota)} is used: delete lessons, or ask for more.` : `${bytes(used)} of ${bytes(quota)} used`;
  }
}
