// The CUDA engine: the exact kernel of one network on one image.
#pragma once

#include <memory>

#include "cpu/engine.h"
#include "cuda/device.h"
#include "cuda/runtime.h"
#include "cuda/tuning.h"

namespace ntkfast::cuda {

// All pointers to v and out are to the memory of the device, and calls return when the result is there.
template <class Real> class Engine {
public:
    // image: (height, width, channels) in the host's memory, contiguous, finite; nullptr for iid noise.  shape.batch is 1.
    // Throws std::runtime_error (cuda::why_unavailable()) without a card, std::invalid_argument, std::bad_alloc.  The poll is
    // asked while the fields are built on the host.
    Engine(const Program& program, const Shape& shape, const double* image, int device, int threads,
           const Tuning& tuning = {}, Poll poll = nullptr);
    ~Engine();
    Engine(Engine&&) noexcept;

    const Shape& shape() const;
    int device() const;

    // Theta(i,i) in the image's units, to the host's memory: out (pixels)
    void diagonal(double* out) const;

    // out = Theta v: (pixels, columns), contiguous, on the stream
    void product(const Real* v, Real* out, int columns, Stream stream, Poll poll) const;

    // As in ntkfast::Engine.  dense() needs no store().
    void store(Poll poll);
    bool stored() const;
    void keep_coarse(Poll poll);
    bool coarse_kept() const;
    void dense(Real* out, Stream stream, Poll poll) const;  // (pixels, pixels)

    // Bytes of the device's memory, predicted from the sizes alone.
    static MemoryEstimate estimate(const Program& program, const Shape& shape, int columns, const Device& device,
                                   const Tuning& tuning = {});

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace ntkfast::cuda
