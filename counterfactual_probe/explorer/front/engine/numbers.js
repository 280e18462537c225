// Numbers out of text: base64, and floats of 16 bits, which not every browser knows.

export function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

export function base64Of(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

export function floatsOf(base64, type) {
  const bytes = bytesOf(base64);
  if (type === "float32") return new Float32Array(bytes.buffer, 0, bytes.length >> 2);
  return halves(new Uint16Array(bytes.buffer, 0, bytes.length >> 1));
}

// The bits of each float of 16 bits become those of the equal float of 32: the exponent's offset grows by 112.
function halves(given) {
  const result = new Float32Array(given.length);
  const bits = new Uint32Array(result.buffer);
  for (let i = 0; i < given.length; i++) {
    const half = given[i];
    const sign = (half & 0x8000) << 16;
    const exponent = half & 0x7c00;
    if (exponent === 0) result[i] = ((half & 0x8000) ? -1 : 1) * (half & 0x3ff) * 2 ** -24;
    else bits[i] = sign | (exponent === 0x7c00 ? 0x7f800000 : 0x38000000 + (exponent << 13)) | ((half & 0x3ff) << 13);
  }
  return result;
}
