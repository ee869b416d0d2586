// This file alone knows pybind11: it checks the arrays, releases the GIL, and calls the engine.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/engine.h"
#include "cpu/rows/dispatch.h"
#include "cpu/rows/roofline.h"
#include "cpu/threads.h"
#include "cuda/device.h"
#include "cuda/engine.h"
#include "cuda/runtime.h"
#include "plan/aligned.h"
#include "plan/engine.h"
#include "plan/program.h"

namespace py = pybind11;
using namespace ntkfast;

namespace {

// Arrays must be contiguous and of exactly this type: nothing is converted behind the caller's back.
template <class T> using Array = py::array_t<T, py::array::c_style>;

// A node comes as (operation, inputs, level, numbers); the numbers are, by operation:
//   conv       kernel_size, stride, weight_var, bias_var, trainable
//   rectifier  slope
//   avg_pool   factor
//   upsample   factor, 1 for bilinear or 0 for nearest
//   concat     the two shares
using NodeTuple = std::tuple<std::string, std::vector<int>, int, std::vector<double>>;

Node make_node(const NodeTuple& tuple) {
    const auto& [name, inputs, level, numbers] = tuple;
    Node node{op_from_name(name), inputs, level};
    const auto require = [&, count = numbers.size()](std::size_t wanted) {
        if (count != wanted) throw std::invalid_argument("program: wrong number of numbers for a node");
    };
    if (node.op == Op::conv) {
        require(5);
        node.kernel_size = int(numbers[0]), node.stride = int(numbers[1]);
        node.weight_var = numbers[2], node.bias_var = numbers[3], node.trainable = numbers[4] != 0;
    } else if (node.op == Op::rectifier) {
        require(1);
        node.slope = numbers[0];
    } else if (node.op == Op::upsample) {
        require(2);
        node.factor = int(numbers[0]), node.bilinear = numbers[1] != 0;
    } else if (node.op == Op::avg_pool) {
        require(1);
        node.factor = int(numbers[0]);
    } else if (node.op == Op::concat) {
        require(2);
        node.shares[0] = numbers[0], node.shares[1] = numbers[1];
    } else {
        require(0);
    }
    return node;
}

Program make_program(const std::vector<NodeTuple>& nodes, bool circular, bool nngp) {
    Program program;
    for (const NodeTuple& node : nodes) program.nodes.push_back(make_node(node));
    program.padding = circular ? Padding::circular : Padding::zeros;
    program.kernel = nngp ? Kernel::nngp : Kernel::ntk;
    program.check();
    return program;
}

// A PythonPoll is called by the engine at intervals, without the GIL: it lets Python handle signals (Ctrl-C), then
// reports progress.  An exception is kept and raised again once the engine has stopped.
class PythonPoll {
public:
    explicit PythonPoll(py::object progress) : progress_(std::move(progress)) {}

    Poll poll() {
        return [this](double fraction) {
            const py::gil_scoped_acquire gil;
            if (PyErr_CheckSignals() != 0) {
                error_ = std::make_unique<py::error_already_set>();
                return false;
            }
            if (progress_.is_none()) return true;
            try {
                progress_(fraction);
            } catch (py::error_already_set& error) {
                error_ = std::make_unique<py::error_already_set>(std::move(error));
                return false;
            }
            return true;
        };
    }

    // Runs an engine call without the GIL, and returns what it does.
    template <class Call> auto run(Call call) {
        try {
            const py::gil_scoped_release release;
            return call(poll());
        } catch (const Cancelled&) {
            if (error_) throw std::move(*error_);
            throw std::runtime_error("stopped");
        }
    }

private:
    py::object progress_;
    std::unique_ptr<py::error_already_set> error_;
};

// Makes an array that begins on a cache line, so that lines written past the caches are whole ones: NumPy's own begin
// on 16 bytes.
template <class T> Array<T> aligned_array(const std::vector<py::ssize_t>& shape) {
    py::ssize_t count = 1;
    for (const py::ssize_t n : shape) count *= n;
    Array<T> memory(count + py::ssize_t(cache_line / sizeof(T)));
    void* begin = memory.mutable_data();
    std::size_t room = std::size_t(memory.nbytes());
    std::align(cache_line, std::size_t(count) * sizeof(T), begin, room);
    return Array<T>(shape, static_cast<const T*>(begin), memory);
}

template <class Array> void require_shape(const char* name, const Array& array, std::vector<py::ssize_t> shape) {
    bool same = array.ndim() == py::ssize_t(shape.size());
    std::string wanted, got;
    for (std::size_t n = 0; n < shape.size(); ++n) wanted += (n ? ", " : "") + std::to_string(shape[n]);
    for (py::ssize_t n = 0; n < array.ndim(); ++n) {
        got += (n ? ", " : "") + std::to_string(array.shape(n));
        same = same && array.shape(n) == shape[std::size_t(n)];
    }
    if (!same) throw py::value_error(std::string(name) + " must have shape (" + wanted + "), got (" + got + ")");
}

Shape shape_of(const Array<double>& images) {
    if (images.ndim() != 4) throw py::value_error("images must have 4 dimensions (batch, height, width, channels)");
    return {int(images.shape(1)), int(images.shape(2)), int(images.shape(3)), int(images.shape(0))};
}

// Counts the columns of v (pixels, columns, batch).
template <class Real> int columns_of(const Array<Real>& v, const Shape& shape) {
    if (v.ndim() != 3) throw py::value_error("v must have 3 dimensions, got " + std::to_string(v.ndim()));
    require_shape("v", v, {shape.pixels(), v.shape(1), shape.batch});
    return int(v.shape(1));
}

// --- What every engine does ------------------------------------------------------------------------------------------

// Makes an engine without the GIL by make(program, shape, image, poll), with no image for noise.
template <class Make>
auto made(const std::vector<NodeTuple>& nodes, bool circular, bool nngp, const Array<double>& images, bool noise,
          Make make) {
    const Program program = make_program(nodes, circular, nngp);
    const Shape shape = shape_of(images);
    const double* image = noise ? nullptr : images.data();
    return PythonPoll(py::none()).run([&](Poll poll) { return make(program, shape, image, std::move(poll)); });
}

// Returns the diagonal, (pixels, batch).
template <class Real> Array<double> diagonal(const Engine<Real>& engine) {
    Array<double> out({engine.shape().pixels(), std::int64_t(engine.shape().batch)});
    double* to = out.mutable_data();
    const py::gil_scoped_release release;
    engine.diagonal(to);
    return out;
}

// Takes v (pixels, columns, batch) and returns the same shape.
template <class Real> Array<Real> product(const Engine<Real>& engine, const Array<Real>& v, py::object progress) {
    const int columns = columns_of(v, engine.shape());
    Array<Real> out({v.shape(0), v.shape(1), v.shape(2)});
    const Real* from = v.data();
    Real* to = out.mutable_data();
    PythonPoll(std::move(progress)).run([&](Poll poll) { engine.product(from, to, columns, std::move(poll)); });
    return out;
}

template <class Real> void store(Engine<Real>& engine, py::object progress) {
    PythonPoll(std::move(progress)).run([&](Poll poll) { engine.store(std::move(poll)); });
}

template <class Real> void keep_coarse(Engine<Real>& engine, py::object progress) {
    PythonPoll(std::move(progress)).run([&](Poll poll) { engine.keep_coarse(std::move(poll)); });
}

// Returns the matrix, (batch, pixels, pixels).
template <class Real> Array<Real> dense(const Engine<Real>& engine, py::object progress) {
    const py::ssize_t d = engine.shape().pixels();
    Array<Real> out = aligned_array<Real>({py::ssize_t(engine.shape().batch), d, d});
    Real* to = out.mutable_data();
    PythonPoll(std::move(progress)).run([&](Poll poll) { engine.dense(to, std::move(poll)); });
    return out;
}

template <class Real> void bind_engine(py::module_& module, const char* name) {
    py::class_<Engine<Real>>(module, name)
        .def_property_readonly("exponent", &Engine<Real>::exponent)
        .def("diagonal", &diagonal<Real>)
        .def("product", &product<Real>, py::arg("v").noconvert(), py::arg("progress") = py::none())
        .def("store", &store<Real>, py::arg("progress") = py::none())
        .def_property_readonly("stored", &Engine<Real>::stored)
        .def("keep_coarse", &keep_coarse<Real>, py::arg("progress") = py::none())
        .def_property_readonly("coarse_kept", &Engine<Real>::coarse_kept)
        .def("dense", &dense<Real>, py::arg("progress") = py::none());
}

// Returns the bytes by part.
py::dict parts(const MemoryEstimate& bytes) {
    py::dict out;
    for (const MemoryPart& part : memory_parts) out[part.name] = bytes.*part.bytes;
    return out;
}

// --- The CPU's -------------------------------------------------------------------------------------------------------

// Returns the columns, (count, pixels).
template <class Real>
Array<Real> columns(const CpuEngine<Real>& engine, const Array<std::int64_t>& pixels, py::object progress) {
    if (pixels.ndim() != 1) throw py::value_error("pixels must have 1 dimension");
    Array<Real> out({pixels.shape(0), py::ssize_t(engine.shape().pixels())});
    const std::int64_t* from = pixels.data();
    Real* to = out.mutable_data();
    const std::int64_t count = pixels.shape(0);
    PythonPoll(std::move(progress)).run([&](Poll poll) { engine.columns(from, count, to, std::move(poll)); });
    return out;
}

template <class Real> void bind_cpu_engine(py::module_& module, const char* name) {
    const auto make = [](const std::vector<NodeTuple>& nodes, bool circular, bool nngp, const Array<double>& images,
                         bool noise, const std::string& isa, int threads, int lanes) {
        const EngineOptions options{isa_from_name(isa), threads, lanes};
        return made(nodes, circular, nngp, images, noise,
                    [&](const Program& program, const Shape& shape, const double* image, Poll poll) {
                        return std::make_unique<CpuEngine<Real>>(program, shape, image, options, std::move(poll));
                    });
    };
    py::class_<CpuEngine<Real>, Engine<Real>>(module, name)
        .def(py::init(make), py::arg("nodes"), py::arg("circular"), py::arg("nngp"), py::arg("images"),
             py::arg("noise"), py::kw_only(), py::arg("isa"), py::arg("threads"), py::arg("lanes"))
        .def("columns", &columns<Real>, py::arg("pixels").noconvert(), py::arg("progress") = py::none())
        .def_property_readonly("columns_bytes", &CpuEngine<Real>::columns_bytes);
}

template <class Real>
py::dict estimate(const std::vector<NodeTuple>& nodes, bool circular, bool nngp, std::array<int, 4> shape, int columns,
                  int threads, int lanes) {
    const auto [batch, height, width, channels] = shape;
    return parts(CpuEngine<Real>::estimate(make_program(nodes, circular, nngp), {height, width, channels, batch},
                                           columns, {Isa::baseline, threads, lanes}));
}

// --- A card's --------------------------------------------------------------------------------------------------------

// A DeviceArray lies in a device's memory: contiguous, of the engine's type, alive during the call.
struct DeviceArray {
    std::uintptr_t address;
    std::vector<std::int64_t> shape;
    int device;
};
using DeviceTuple = std::tuple<std::uintptr_t, std::vector<std::int64_t>, int>;

template <class Real> DeviceArray device_array(const char* name, const DeviceTuple& tuple, int device) {
    const auto& [address, shape, on] = tuple;
    if (on != device)
        throw py::value_error(std::string(name) + " must be on device " + std::to_string(device) + ", got " +
                              std::to_string(on));
    if (address == 0 || address % sizeof(Real) != 0)
        throw py::value_error(std::string(name) + " must be the address of numbers, got " + std::to_string(address));
    return {address, shape, on};
}

// Both v and out are (pixels, columns).
template <class Real>
void product_on_device(const cuda::Engine<Real>& engine, const DeviceTuple& v, const DeviceTuple& out,
                       cuda::Stream stream, py::object progress) {
    const DeviceArray from = device_array<Real>("v", v, engine.device()),
                      to = device_array<Real>("out", out, engine.device());
    if (from.shape.size() != 2 || from.shape[0] != engine.shape().pixels() || to.shape != from.shape)
        throw py::value_error("v and out must have the same shape (" + std::to_string(engine.shape().pixels()) +
                              ", columns)");
    PythonPoll(std::move(progress)).run([&](Poll poll) {
        engine.product_on_device(reinterpret_cast<const Real*>(from.address), reinterpret_cast<Real*>(to.address),
                                 int(from.shape[1]), stream, std::move(poll));
    });
}

template <class Real> void bind_cuda_engine(py::module_& module, const char* name) {
    const auto make = [](const std::vector<NodeTuple>& nodes, bool circular, bool nngp, const Array<double>& images,
                         bool noise, int device, int threads) {
        return made(nodes, circular, nngp, images, noise,
                    [&](const Program& program, const Shape& shape, const double* image, Poll poll) {
                        return std::make_unique<cuda::Engine<Real>>(program, shape, image, device, threads,
                                                                    cuda::Tuning{}, std::move(poll));
                    });
    };
    py::class_<cuda::Engine<Real>, Engine<Real>>(module, name)
        .def(py::init(make), py::arg("nodes"), py::arg("circular"), py::arg("nngp"), py::arg("images"),
             py::arg("noise"), py::kw_only(), py::arg("device"), py::arg("threads"))
        .def_property_readonly("device", &cuda::Engine<Real>::device)
        .def("product_on_device", &product_on_device<Real>, py::arg("v"), py::arg("out"), py::kw_only(),
             py::arg("stream"), py::arg("progress") = py::none());
}

// Estimates the memory of a device.
template <class Real>
py::dict cuda_estimate(const std::vector<NodeTuple>& nodes, bool circular, bool nngp, std::array<int, 4> shape,
                       int columns, int device) {
    const auto [batch, height, width, channels] = shape;
    const std::vector<cuda::Device> devices = cuda::devices();
    if (devices.empty()) throw std::runtime_error(cuda::why_unavailable());
    if (device < 0 || device >= int(devices.size())) throw py::value_error("device out of range");
    return parts(cuda::Engine<Real>::estimate(make_program(nodes, circular, nngp), {height, width, channels, batch},
                                              columns, devices[std::size_t(device)]));
}

// The entries are (name, (major, minor), multiprocessors, bytes, free bytes).
using DeviceInfo = std::tuple<std::string, std::tuple<int, int>, int, std::int64_t, std::int64_t>;

std::vector<DeviceInfo> cuda_devices() {
    std::vector<DeviceInfo> out;
    for (const cuda::Device& device : cuda::devices())
        out.emplace_back(device.name, std::tuple(device.major, device.minor), device.multiprocessors, device.bytes,
                         device.free_bytes);
    return out;
}

template <class Call> std::vector<std::string> names(Call levels) {
    std::vector<std::string> out;
    for (const Isa isa : levels()) out.emplace_back(isa_name(isa));
    return out;
}

}  // namespace

PYBIND11_MODULE(_core, module) {
    module.doc() = "Compiled engine of ntkfast.  Not public: use ntkfast.NTK.";
    bind_engine<float>(module, "EngineFloat32");
    bind_engine<double>(module, "EngineFloat64");
    bind_cpu_engine<float>(module, "CpuEngineFloat32");
    bind_cpu_engine<double>(module, "CpuEngineFloat64");
    bind_cuda_engine<float>(module, "CudaEngineFloat32");
    bind_cuda_engine<double>(module, "CudaEngineFloat64");
    for (const bool wide : {false, true}) {
        module.def(wide ? "estimate_float64" : "estimate_float32", wide ? &estimate<double> : &estimate<float>,
                   py::arg("nodes"), py::arg("circular"), py::arg("nngp"), py::arg("shape"), py::arg("columns"),
                   py::arg("threads"), py::arg("lanes"));
        module.def(wide ? "cuda_estimate_float64" : "cuda_estimate_float32",
                   wide ? &cuda_estimate<double> : &cuda_estimate<float>, py::arg("nodes"), py::arg("circular"),
                   py::arg("nngp"), py::arg("shape"), py::arg("columns"), py::arg("device"));
    }
    module.def("cuda_backend", &cuda::backend);
    module.def("cuda_devices", &cuda_devices, py::call_guard<py::gil_scoped_release>());
    module.def("cuda_why_unavailable", &cuda::why_unavailable);
    module.def("cuda_architectures", &cuda::architectures);
    module.def("cuda_compiler", &cuda::compiler_version);
    module.def("cuda_driver", &cuda::driver_version);
    module.def(
        "roofline", &roofline, py::arg("stages"), py::arg("channels"), py::arg("columns"), py::arg("isa"),
        py::arg("length"), py::arg("repeats"), py::arg("threads"),
        "Seconds per pixel pair of the row kernels that a network uses, timed alone in L1, on all threads at once.");
    module.def("compiled_isas", [] { return names(compiled_isas); });
    module.def("supported_isas", [] { return names(supported_isas); });
    module.def("default_threads", &default_threads);
    module.def("release_threads", &release_threads);
    module.attr("max_lanes") = max_lanes;
    module.attr("threads_by") = threads_by();
    module.attr("compiler") = NTKFAST_COMPILER;
    module.attr("float_flags") = NTKFAST_FLOAT_FLAGS;
    module.attr("__version__") = NTKFAST_VERSION;
}
