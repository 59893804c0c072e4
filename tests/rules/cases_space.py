"""Pixel shuffle, sampling, and operators that keep some axes whole."""

from __future__ import annotations

import numpy as np
from rule_law import Case, case

_GRID = np.random.default_rng(0).uniform(-1.1, 1.1, (2, 3, 2, 2)).astype(np.float32)
_ROIS = np.array([[0, 0, 3, 3], [1, 0, 2, 3], [0, 1, 3, 2]], np.float32)
_ROIS_OF_IMAGES = np.array([[0, 0, 0, 3, 3], [1, 1, 0, 2, 3], [0, 0, 1, 3, 2]], np.float32)
_SHUFFLE = "split = Reshape(x, s); moved = Transpose <perm=[0,{}]> (split); y = Reshape(moved, t)"

CASES: list[Case] = [
    case("DepthToSpace", "x[2,12,3,2]", "y = DepthToSpace <blocksize=2> (x)"),
    case("DepthToSpace CRD", "x[2,12,3,2]", 'y = DepthToSpace <blocksize=2, mode="CRD"> (x)'),
    case("DepthToSpace one channel", "x[2,4,3,2]", "y = DepthToSpace <blocksize=2> (x)"),
    case("DepthToSpace block of one", "x[2,4,3,2]", 'y = DepthToSpace <blocksize=1, mode="CRD"> (x)'),
    case("DepthToSpace no mode", "x[2,12,3,2]", "y = DepthToSpace <blocksize=2> (x)", opset=10),
    *(
        case(
            f"DepthToSpace {mode} between convolutions",
            "x[2,3,3,3] *w[12,3,1,1] *b[12] *v[5,3,2,2]",
            f'h = Conv(x, w, b); d = DepthToSpace <blocksize=2, mode="{mode}"> (h); y = Conv(d, v)',
        )
        for mode in ("DCR", "CRD")
    ),
    case("SpaceToDepth", "x[2,3,4,6]", "y = SpaceToDepth <blocksize=2> (x)"),
    case("SpaceToDepth CRD", "x[2,3,4,6]", 'y = SpaceToDepth <blocksize=2, mode="CRD"> (x)', opset=28),
    case(
        "SpaceToDepth between convolutions",
        "x[2,3,4,4] *w[5,3,1,1] *v[4,20,2,2]",
        "h = Conv(x, w); d = SpaceToDepth <blocksize=2> (h); y = Conv(d, v)",
    ),
    case(
        "DepthToSpace and back",
        "x[2,12,3,2]",
        "d = DepthToSpace <blocksize=2> (x); y = SpaceToDepth <blocksize=2> (d)",
    ),
    # The same as an exporter writes it.
    case(
        "Reshape pixel shuffle CRD",
        "x[2,12,3,2]",
        _SHUFFLE.format("1,4,2,5,3"),
        s=[2, 3, 2, 2, 3, 2],
        t=[2, 3, 6, 4],
    ),
    case(
        "Reshape pixel shuffle DCR",
        "x[2,12,3,2]",
        _SHUFFLE.format("3,4,1,5,2"),
        s=[2, 2, 2, 3, 3, 2],
        t=[2, 3, 6, 4],
    ),
    case(
        "Reshape pixel unshuffle",
        "x[2,3,6,4]",
        _SHUFFLE.format("1,3,5,2,4"),
        s=[2, 3, 3, 2, 2, 2],
        t=[2, 12, 3, 2],
    ),
    *(
        case(
            f"Reshape pixel shuffle {mode} between convolutions",
            "i[2,3,3,3] *w[12,3,1,1] *b[12] *v[5,3,2,2]",
            f"x = Conv(i, w, b); {_SHUFFLE.format(order)}; z = Conv(y, v)",
            s=split,
            t=[2, 3, 6, 6],
        )
        for mode, order, split in (
            ("CRD", "1,4,2,5,3", [2, 3, 2, 2, 3, 3]),
            ("DCR", "3,4,1,5,2", [2, 2, 2, 3, 3, 3]),
        )
    ),
    case("Col2Im", "x[2,12,4]", "y = Col2Im(x, i, k)", i=[3, 3], k=[2, 2]),
    case("Col2Im strided", "x[2,12,4]", "y = Col2Im <strides=[2,2]> (x, i, k)", i=[4, 4], k=[2, 2]),
    case("GridSample", "x[2,3,4,4] g[2,3,2,2]", "y = GridSample(x, g)", opset=20),
    case("GridSample constant grid", "x[2,3,4,4]", 'y = GridSample <mode="cubic"> (x, g)', opset=20, g=_GRID),
    case(
        "GridSample border",
        "x[2,3,4,4] g[2,3,2,2]",
        'y = GridSample <padding_mode="border", mode="nearest", align_corners=1> (x, g)',
        opset=20,
    ),
    case(
        "RoiAlign",
        "x[2,3,4,4]",
        "y = RoiAlign <output_height=2, output_width=2> (x, r, i)",
        r=_ROIS,
        i=[0, 1, 0],
        opset=16,
    ),
    case(
        "RoiAlign max",
        "x[2,3,4,4] r[3,4]",
        'y = RoiAlign <mode="max", output_height=2, output_width=2> (x, r, i)',
        i=[0, 1, 0],
        opset=16,
    ),
    case("MaxRoiPool", "x[2,3,4,4]", "y = MaxRoiPool <pooled_shape=[2,2]> (x, r)", r=_ROIS_OF_IMAGES),
    case(
        "DeformConv",
        "x[2,4,2,3] *w[3,4,2,2] o[2,8,1,2] *b[3] m[2,4,1,2]",
        "y = DeformConv <kernel_shape=[2,2]> (x, w, o, b, m)",
    ),
    case("DeformConv no bias", "x[2,4,2,3] *w[3,4,2,2] o[2,8,1,2]", "y = DeformConv(x, w, o)"),
    case(
        "DeformConv groups of offsets",
        "x[2,4,2,3] *w[3,4,2,2] o[2,16,1,2]",
        "y = DeformConv <offset_group=2> (x, w, o)",
    ),
    case(
        "DeformConv groups of channels",
        "x[2,4,2,3] *w[6,2,2,2] o[2,8,1,2] *b[6]",
        "y = DeformConv <group=2> (x, w, o, b)",
    ),
    case(
        "DeformConv depthwise",
        "x[2,4,2,3] *w[4,1,2,2] o[2,32,1,2] m[2,16,1,2]",
        'y = DeformConv <group=4, offset_group=4> (x, w, o, "", m)',
    ),
    case(
        "DeformConv both groups",
        "x[2,8,2,3] *w[4,4,2,2] o[2,32,1,2]",
        "y = DeformConv <group=2, offset_group=4> (x, w, o)",
    ),
    case(
        "DeformConv groups that cross",
        "x[2,6,2,3] *w[4,3,2,2] o[2,24,1,2]",
        "y = DeformConv <group=2, offset_group=3> (x, w, o)",
    ),
    case("CenterCropPad", "x[2,5,6,4]", "y = CenterCropPad <axes=[-2,-1]> (x, s)", s=[4, 6]),
    case("CenterCropPad same size", "x[2,5,6,4]", "y = CenterCropPad <axes=[1,2]> (x, s)", s=[5, 3]),
    case("CenterCropPad all axes", "x[2,5,6]", "y = CenterCropPad(x, s)", s=[2, 5, 8]),
    case("CumProd", "x[3,4,2]", "y = CumProd(x, a)", a=np.array(1), opset=26),
    case("CumProd exclusive", "x[3,4,2]", "y = CumProd <exclusive=1> (x, a)", a=np.array(-1), opset=26),
    case("Det", "x[3,4,2,2]", "y = Det(x)"),
    case("DFT", "x[3,4,5,1]", "y = DFT(x)", opset=20),
    case("DFT axis", "x[3,4,5,2]", 'y = DFT <inverse=1> (x, "", a)', opset=20, a=np.array(1)),
    case(
        "DFT one sided",
        "x[3,4,6,1]",
        "y = DFT <onesided=1> (x, n, a)",
        opset=20,
        n=np.array(6),
        a=np.array(-2),
    ),
    case("DFT attribute", "x[3,4,5,1]", "y = DFT <axis=2> (x)", opset=17),
    case("SwiGLU", "x[3,4] z[3,4]", "y = SwiGLU <alpha=0.5> (x, z)", opset=28),
    case("SwiGLU gate not zero", "x[3,4] z[3,4]", "e = Exp(x); y = SwiGLU(e, z)", opset=28),
    case("BitCast", "x[3,4]", "y = BitCast <to=6> (x)", opset=26),
]
