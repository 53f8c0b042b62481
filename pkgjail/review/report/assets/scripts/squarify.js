// Divide a rectangle among values, largest first, into rectangles that are nearly square (Bruls, Huizing and
// van Wijk, 2000). Returns [x, y, width, height] for each value.
const squarify = (values, x, y, width, height) => {
  const places = [];
  let rest = values.reduce((sum, value) => sum + value, 0);
  let start = 0;
  const worst = (sum, first, last, side, scale) => {
    const area = (sum * scale) ** 2;
    const square = side * side * scale;
    return Math.max((square * values[first]) / area, area / (square * values[last]));
  };
  while (start < values.length) {
    const side = Math.min(width, height);
    const scale = rest > 0 ? (width * height) / rest : 0;
    let sum = values[start];
    let end = start + 1;
    while (end < values.length && scale && side && worst(sum + values[end], start, end, side, scale) <= worst(sum, start, end - 1, side, scale)) sum += values[end++];
    const thick = side ? (sum * scale) / side : 0;
    let at = 0;
    for (let index = start; index < end; index++) {
      const long = sum ? (side * values[index]) / sum : 0;
      places.push(width >= height ? [x, y + at, thick, long] : [x + at, y, long, thick]);
      at += long;
    }
    if (width >= height) { x += thick; width = Math.max(0, width - thick); } else { y += thick; height = Math.max(0, height - thick); }
    rest -= sum;
    start = end;
  }
  return places;
};
