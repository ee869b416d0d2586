// Engine is the engine that computes on a card, for one image.
#pragma once

#include <memory>

#include "cuda/device.h"
#include "cuda/runtime.h"
#include "cuda/tuning.h"
#include "plan/engine.h"

namespace ntkfast::cuda {

template <class Real> class Engine final : public ntkfast::Engine<Real> {
public:
    // The image is (height, width, channels) in the host's memory, contiguous, finite; nullptr stands for iid noise.
    // shape.batch is 1.  Throws std::runtime_error (cuda::why_unavailable()) without a card, std::invalid_argument,
    // std::bad_alloc.  The poll is asked while the fields are built on the host.
    Engine(const Program& program, const Shape& shape, const double* image, int device, int threads,
           const Tuning& tuning = {}, Poll poll = nullptr);
    ~Engine() override;

    int device() const;

    const Shape& shape() const override;
    int exponent() const override;
    void diagonal(double* out) const override;
    void product(const Real* v, Real* out, int columns, Poll poll) const override;
    void store(Poll poll) override;
    bool stored() const override;
    void keep_coarse(Poll poll) override;
    bool coarse_kept() const override;
    void dense(Real* out, Poll poll) const override;

    // Does what product() does, but v and out are in the memory of the device.  It returns when the result is there.
    void product_on_device(const Real* v, Real* out, int columns, Stream stream, Poll poll) const;

    // Returns bytes of the device's memory, predicted from the sizes alone.
    static MemoryEstimate estimate(const Program& program, const Shape& shape, int columns, const Device& device,
                                   const Tuning& tuning = {});

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace ntkfast::cuda
