"""A random multimodal projector (mmproj) of 30 KB, for the tiny model: it sees 32 x 32 pixels."""

import gguf
import numpy as np

from app.models.tiny_writer import WIDTH

SIDE, PATCH, EMBEDDING, FEED_FORWARD = 32, 8, 16, 32


def write(path):
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_string("clip.projector_type", "gemma3")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    for name, value in {
        "image_size": SIDE,
        "patch_size": PATCH,
        "embedding_length": EMBEDDING,
        "feed_forward_length": FEED_FORWARD,
        "projection_dim": WIDTH,
        "block_count": 1,
        "attention.head_count": 2,
        "projector.scale_factor": SIDE // PATCH,
    }.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    square, wide = (EMBEDDING, EMBEDDING), (FEED_FORWARD, EMBEDDING)
    shapes = {
        "v.patch_embd.weight": (EMBEDDING, 3, PATCH, PATCH),
        "v.position_embd.weight": ((SIDE // PATCH) ** 2, EMBEDDING),
        "v.post_ln.weight": (EMBEDDING,),
        "v.post_ln.bias": (EMBEDDING,),
        "mm.input_projection.weight": (EMBEDDING, WIDTH),
        "mm.soft_emb_norm.weight": (EMBEDDING,),
        **{f"v.blk.0.attn_{name}.weight": square for name in ("q", "k", "v", "out")},
        **{f"v.blk.0.ln{n}.{part}": (EMBEDDING,) for n in (1, 2) for part in ("weight", "bias")},
        "v.blk.0.ffn_up.weight": wide,
        "v.blk.0.ffn_down.weight": wide[::-1],
    }
    random = np.random.default_rng(1)
    for name, shape in shapes.items():
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32) * 0.1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
