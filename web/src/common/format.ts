// Numbers as people read them.

/** 1536 → "1.5 KB"; decimal units, as file managers show them. */
export function bytes(count: number): string {
  if (!Number.isFinite(count) || count < 0) return "–";
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** 3725 → "1:02:05", 65 → "1:05": a position in a film. */
export function clock(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  const whole = Math.floor(seconds);
  const two = (n: number) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** 95 → "2 min left": how long something will take, no more exact than it is known. */
export function remaining(seconds: number): string {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 5) return "a few seconds left";
  if (seconds < 60) return `${Math.ceil(seconds / 5) * 5} s left`;
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return `${minutes} min left`;
  const rest = minutes % 60;
  return rest ? `${Math.floor(minutes / 60)} h ${rest} min left` : `${Math.floor(minutes / 60)} h left`;
}

/** 0.4267 → "42 %". Rounded down, so that 100 % means done. */
export function percent(part: number): string {
  if (!Number.isFinite(part)) return "0 %";
  return `${Math.floor(Math.min(1, Math.max(0, part)) * 100)} %`;
}

/** "03_lights and-shadows.final.mp4" → "03 lights and-shadows.final" */
export function titleOf(filename: string): string {
  return filename.replace(/\.[A-Za-z0-9]{1,5}$/, "").replace(/_+/g, " ").trim().slice(0, 200) || "Lesson";
}
