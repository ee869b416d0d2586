"""The script that counts vectorised loops reads assembly of x86-64 and 64-bit ARM as it stands in small examples."""

from __future__ import annotations

import pytest
from tools.vectorised import Loop, Share, arithmetic, loops, main, marked_ranges, row, share

SOURCE = """\
void scale(float* x, int n) {
    NTKFAST_VECTOR_LOOP
    for (int l = 0; l < n; ++l) x[l] = sqrt(x[l]);  // one line
    NTKFAST_VECTOR_LOOP
    for (int l = 0; l < n; ++l) {
        if (l) {
            x[l] /= 3;
        }
    }
    for (int l = 0; l < n; ++l) x[l] = 0;
}
"""

# A packed loop and the scalar one for the rest, of line 3; a scalar one of lines 5 to 9; one of line 10, not marked.
X86 = """\
\t.file 1 "/here/rows.h"
\t.file 2 "/here/math.h"
scale:
\t.cfi_startproc
.L3:
\t.loc 1 3 5
\tvsqrtps\t(%rdi), %ymm0
\t.loc 2 7 5
\tvfmadd132ps\t%ymm1, %ymm2, %ymm0
\tjne\t.L3
.L4:
\t.loc 1 3 5
\tvsqrtss\t(%rdi), %xmm0, %xmm0
\tjne\t.L4
.L9:
\tnop
.L5:
\t.loc 1 7 5
\tvdivsd\t%xmm1, %xmm0, %xmm0
\tvmovaps\t%ymm1, %ymm2
\tjb\t.L5
\tjmp\t.L9
.L6:
\t.loc 1 10 5
\tvaddps\t%ymm1, %ymm0, %ymm0
\tjne\t.L6
\tret
\t.cfi_endproc
"""

ARM = """\
\t.file 1 "/here" "rows.h" md5 0x0
scale:
.LBB0_1:                                // %loop
\t.loc 1 3 5                            // rows.h:3:5
\tfsqrt\tv0.4s, v1.4s
\tfmla\tv2.4s, v0.4s, v0.4s
\tb.ne\t.LBB0_1
.LBB0_2:
\t.loc 1 7 5
\tfdiv\ts0, s1, s2
\tfmadd\ts0, s1, s2, s3
\tbne\t.LBB0_2
\tret
\t.cfi_endproc
"""


def test_marks_cover_their_loops() -> None:
    assert marked_ranges(SOURCE) == {3: range(3, 4), 5: range(5, 10)}


@pytest.mark.parametrize(
    ("name", "operands", "kind"),
    [
        ("sqrtss", "%xmm0, %xmm0", ("sqrt", False)),
        ("vsubpd", "%ymm0, %ymm0, %ymm0", ("add", True)),
        ("vfnmadd231ps", "%zmm0, %zmm0, %zmm0", ("fma", True)),
        ("vfmsub132sd", "%xmm0, %xmm0, %xmm0", ("fma", False)),
        ("vmovaps", "%ymm0, %ymm1", None),
        ("vmaxps", "%ymm0, %ymm0, %ymm1", None),
        ("addq", "$32, %rax", None),
        ("fmul", "v0.2d, v1.2d, v2.2d", ("mul", True)),
        ("fmls", "v0.4s, v1.4s, v2.4s", ("fma", True)),
        ("fnmsub", "s0, s1, s2, s3", ("fma", False)),
        ("fmov", "s0, 1.0e+0", None),
    ],
)
def test_kinds_of_instructions(name: str, operands: str, kind: tuple[str, bool] | None) -> None:
    assert arithmetic(name, operands) == kind


def test_loops_of_x86() -> None:
    found = list(loops(X86, "rows.h", marked_ranges(SOURCE)))
    assert found == [
        Loop("scale", 3, {("sqrt", True): 1, ("fma", True): 1}),
        Loop("scale", 3, {("sqrt", False): 1}),
        Loop("scale", 5, {("div", False): 1}),
    ]


def test_loops_of_arm() -> None:
    found = list(loops(ARM, "rows.h", marked_ranges(SOURCE)))
    assert [(loop.line, loop.packed) for loop in found] == [(3, True), (5, False)]


def test_a_scalar_loop_beside_a_packed_one_is_its_rest() -> None:
    result = share(loops(X86, "rows.h", marked_ranges(SOURCE)))
    assert (result.loops, result.vectorised) == (2, 1)
    assert result.left == {"div": 1}
    assert result.left_lines == {5: 1}
    assert row("cc", "avx2", result) == "| cc | avx2 | 2 | 1 | 50.0 % | 1/1 | 0/1 | 0/0 | 0/0 | 1/0 | 1 div |"


def test_no_loop_at_all_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tools.vectorised.commands", lambda compiler, toolchain: {"row_kernels_avx2": ["cc"]})
    monkeypatch.setattr("tools.vectorised.assemble", lambda command: X86.replace("rows.h", "other.h"))
    assert main(["cc"]) == 1
    assert row("cc", "avx2", Share()) in capsys.readouterr().out
