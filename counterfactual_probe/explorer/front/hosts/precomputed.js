// Pictures in place of a generator: what was computed when the file was made.

export class Precomputed {
  constructor(contents) {
    this.contents = contents;
  }

  async answer(request) {
    const address = request.kind === "hybrid" ? this.hybrid(request.recipe) : this.contents.samples.pictures[request.sample];
    if (!address) return { ...request, error: "this hybrid is not in the file" };
    return { ...request, ...(await this.pixels(address)), milliseconds: 0 };
  }

  // The picture of one whole module of a layer, wholly set.
  hybrid({ base, source, units, strength, where }) {
    const layers = Object.keys(units);
    if (!layers.length || strength === 0 || base === source) return this.contents.samples.pictures[base];
    if (layers.length > 1 || strength !== 1 || where) return null;
    const wanted = units[layers[0]].join();
    const found = this.contents.precomputed.find((one) => (
      one.layer === layers[0] && one.base === base && one.source === source && one.channels.join() === wanted
    ));
    return found?.picture ?? null;
  }

  async pixels(address) {
    const image = new Image();
    image.src = address;
    await image.decode();
    const [channels] = this.contents.size, [low, high] = this.contents.range;
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const size = canvas.width * canvas.height;
    const pixels = new Float32Array(channels * size);
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < size; i++) pixels[c * size + i] = low + (data[4 * i + c] / 255) * (high - low);
    }
    return { pixels, size: [channels, canvas.height, canvas.width] };
  }
}
