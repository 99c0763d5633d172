// The panel in the harbour office: one bar as high as the sea, and the time of the next turn.

const DATUM_TO_QUAY_MM = 6100;

// NOTE(ines): freeboard may be negative. Show it then; the quay is under water and people should know.
export function freeboard(levelMm) {
  return DATUM_TO_QUAY_MM - levelMm;
}

export function barHeight(levelMm, pixels) {
  const share = Math.min(Math.max(levelMm / DATUM_TO_QUAY_MM, 0), 1);
  return Math.round(share * pixels);
}

export function nextTurn(turns, now) {
  return turns.find((turn) => turn.at > now) ?? null;
}

export function draw(panel, reading, turns) {
  const turn = nextTurn(turns, reading.at);
  panel.bar.style.height = `${barHeight(reading.levelMm, panel.pixels)}px`;
  panel.bar.classList.toggle("over-the-quay", freeboard(reading.levelMm) < 0);
  panel.caption.textContent = turn ? `${turn.kind} water at ${turn.clock}` : "no prediction";
}
