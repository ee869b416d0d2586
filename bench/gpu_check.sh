#!/usr/bin/env bash
# This does everything that needs a card, in one command and without a network: build, tests, sanitizers, counters,
# benchmarks.
#
#   bench/gpu_check.sh                      on a machine with a card; takes at most 8 minutes, which of 12 leaves time to
#                                           mend what fails and to run the parts that it concerns again
#   bench/gpu_check.sh build test-cpp       these parts alone, after something was mended: what was built is there still
#   NTKFAST_CUDA=emulate bench/gpu_check.sh   the same steps with the emulated engine, at small sizes: tests this script
#
# The parts are build, environment, test-cpp, test-python, memcheck, racecheck, counters, benchmarks.  They need nvcc
# and a python3 with numpy, scipy, lazy_loader, pybind11, cmake, ninja, pytest and hypothesis; torch and cupy are used
# if they are there.  The command writes check.log, table.txt and gpu.json to the folder that NTKFAST_RESULTS names
# (default build/gpu), prints the table last, and exits with 1 if a part has failed.  NTKFAST_SECONDS is the time for
# all, 470 by default; NTKFAST_COMMIT names the commit where there is no repository.  No setting of the card is changed.
set -uo pipefail
cd "$(dirname "$0")/.."
unset PYTHONPATH PYTHONHOME

readonly how=${NTKFAST_CUDA:-on} budget=${NTKFAST_SECONDS:-470} wanted=" $* "
readonly work=$PWD/build/gpu
mkdir -p "$work" "${NTKFAST_RESULTS:=$work}"
results=$(cd "$NTKFAST_RESULTS" && pwd)
readonly results
readonly log=$results/check.log
: >"$log"
if [[ $how == emulate ]]; then
    sizes=(8 16) small=(--networks conv11 unet)
else
    sizes=(128 256 512 1024 2048 4096) small=()
fi

declare -a lines=()
failed=0

# This tells whether a part is to be run: all are, unless some are named.
chosen() { [[ -z ${wanted// /} || $wanted == *" $1 "* ]]; }

# part NAME LIMIT COMMAND...: runs it with a time limit of its own, within what is left of the whole.
part() {
    local name=$1 limit=$2 start=$SECONDS rc left=$((budget - SECONDS)) outcome
    shift 2
    chosen "$name" || return 0
    ((limit > left)) && limit=$left
    if ((limit <= 0)); then
        lines+=("$(printf '%-28s not run: out of time' "$name")") && failed=1
        return 1
    fi
    printf '=== %s\n' "$name" | tee -a "$log"
    timeout --kill-after=5 "$limit" "$@" >"$work/part.log" 2>&1
    rc=$?
    cat "$work/part.log" >>"$log"
    case $rc in
        0) outcome="ok" ;;
        124 | 137) outcome="FAILED: over its limit of $limit s" && failed=1 ;;
        *) outcome="FAILED: exit status $rc" && failed=1 ;;
    esac
    tail -n 12 "$work/part.log"
    lines+=("$(printf '%-28s %-12s %4d s' "$name" "$outcome" $((SECONDS - start)))")
    return $rc
}

# "without NAME REASON" names a part that cannot be run here.
without() { chosen "$1" && lines+=("$(printf '%-28s not run: %s' "$1" "$2")"); }

build() {
    set -e
    local python
    python=$(command -v python3)
    cmake -S . -B "$work" -G Ninja -DCMAKE_BUILD_TYPE=Release -DNTKFAST_CUDA="$how" -DNTKFAST_TESTS=ON -DNTKFAST_PYTHON=ON \
        -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" \
        -DSKBUILD_PROJECT_VERSION="$(sed -n 's/^version = "\([^"]*\)".*/\1/p' pyproject.toml)"
    cmake --build "$work" --target _core test_cuda
    [[ $how == emulate ]] || python3 cmake/ptxas_report.py table "$work/csrc/cuda"
    rm -rf "$work/site" && mkdir -p "$work/site"
    cp -r python/ntkfast "$work/site/ntkfast"
    rm -f "$work"/site/ntkfast/_core*.so
    cp "$work"/csrc/_core*.so "$work/site/ntkfast/"
}
export -f build
export how work

environment() {
    nvidia-smi || true
    nvcc --version || true
    PYTHONPATH=$work/site python3 -m ntkfast info || PYTHONPATH=$work/site python3 -c 'import ntkfast; print(ntkfast.info())'
    for package in numpy scipy torch cupy pytest; do
        python3 -c "import $package; print('$package', $package.__version__)" || true
    done
}
export -f environment

with_package() { PYTHONPATH="$work/site:$PWD" "$@"; }
export -f with_package

if part build 200 bash -c build; then
    part environment 60 bash -c environment
    part test-cpp 90 "$work/test_cuda"
    # Warnings of other packages are no errors here.
    part test-python 90 bash -c 'with_package python3 -m pytest tests/test_cuda*.py -q -W default -p no:cacheprovider'
    for tool in memcheck racecheck; do
        if [[ $how == emulate ]]; then
            without "$tool" "emulated"
        elif command -v compute-sanitizer >/dev/null; then
            part "$tool" 60 bash -c \
                "with_package compute-sanitizer --tool $tool --error-exitcode 9 python3 -m bench.gpu --small"
        else
            without "$tool" "no compute-sanitizer"
        fi
    done
    [[ $how == emulate ]] && part small 60 bash -c 'with_package python3 -m bench.gpu --small'
    if [[ $how == emulate ]]; then
        without counters "emulated"
    elif command -v ncu >/dev/null; then
        part counters 50 bash -c "with_package ncu --clock-control none --kernel-name regex:SweepKernel --launch-count 2 \
            --kernel-name-base demangled --section SpeedOfLight --section Occupancy --section LaunchStats \
            --section WarpStateStats python3 -m bench.gpu --sizes 256 --networks conv11 --seconds 20"
    else
        without counters "no ncu"
    fi
    limit=$((budget - SECONDS - 10))
    part benchmarks $((limit + 8)) bash -c \
        "with_package python3 -m bench.gpu --seconds $limit --sizes ${sizes[*]} ${small[*]} --json '$results/gpu.json'"
fi

{
    printf '=== in %d s, logs in %s\n' "$SECONDS" "$results"
    printf '%s\n' "${lines[@]}"
    sed -n '/^what, network, side/,$p' "$log"
} | tee "$results/table.txt"
exit $failed
