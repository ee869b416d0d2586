// A Plan is the segment of one target as a list of row operations: it says what is computed, from what, how late, and
// where it lies.
//
// A *value* is a field (E and T') in rows as a convolution takes them in; a *box* is the vertical window of a
// convolution over one value, which holds its rows summed horizontally; a pointwise map makes the next value from the
// sums of a box. Row y of a value is made at step y + lag, and maps lag behind their value by the convolution's radius.
#pragma once

#include <vector>

#include "plan/geometry.h"
#include "plan/program.h"

namespace ntkfast {

enum class ValueKind {
    image,      // squared differences of pixels
    noise,      // 1 for all pairs of different pixels
    banded,     // a row of a band: average pool, convolution with a stride
    upsampled,  // upsampled rows of a band
    map,        // a pointwise map of a box
    merge,      // one or two values with factors
};

// A Share is the factor of a merge's operand, in E and in T'.
struct Share {
    double e = 1, t = 1;
};

struct Value {
    Value(ValueKind of_kind, int of_node) : kind(of_kind), node(of_node) {}

    ValueKind kind;
    int node;              // the node whose output it is
    double gain = 1;       // the rows hold gain * E and gain * T'
    bool tangent = false;  // T' is there
    int lag = 0;
    int halo = 0;        // circular: rows beyond the image that are needed, on either side
    int target = -1;     // banded, upsampled: index of the band
    int box = -1;        // map
    bool sums = false;   // map: passes the box sums on as they are
    int a = -1, b = -1;  // merge: values; b may be missing
    Share share_a, share_b;
    std::vector<int> boxes;   // the boxes that take it in
    bool merged = false;      // a merge, or the segment's end, takes it in
    int depth = 1;            // rows kept
    std::ptrdiff_t base = 0;  // where row 0 of E lies in a lane; T' lies depth rows behind
    bool pulled() const { return kind != ValueKind::map && kind != ValueKind::merge; }
};

struct Box {
    int value;
    int node;             // the convolution, or the activation behind what is not one
    int slots;            // k
    int rows;             // slots, and one more with the running prefix
    int halo;             // circular: the same for the maps behind it
    int first_row;        // the first that it takes in; as many rows beyond the last of a block
    bool angles;          // see ActivationConstants::Form
    std::ptrdiff_t base;  // where slot 0 of E lies in a lane; T' follows behind the rows of E
    int radius() const { return slots / 2; }
    bool blockwise() const { return rows > slots; }
};

struct Plan {
    Plan(const Program& program, const std::vector<Target>& targets, int target, const Shape& image_shape, bool noise);

    Target target;
    Shape shape;                // at the sweep level
    std::vector<Value> values;  // in order; the last is what the target receives
    std::vector<Box> boxes;
    // In step n each value makes row n - lag: a block of `rows` rows takes the steps [first_step, rows + steps_beyond).
    int first_step = 0, steps_beyond = 0;
    // These are of one lane, in elements.
    std::ptrdiff_t left, row_stride, lane_stride;

    const Value& end() const { return values.back(); }

private:
    int add(Value value);
    int value_of(int node);
    int pulled(int node, int lag);
    int box_of(int node);
    int operand(int node);
    int merge(int node);
    int copy(int value);
    bool is_pulled(int node) const;
    bool is_banded(int node) const;
    void choose_halos();
    void count_steps();
    void choose_angles();
    void lay_out();

    const Program* program_;
    const std::vector<Target>* targets_;
    bool noise_;
    std::vector<int> value_of_, box_of_;  // by node; -1 where there is none yet
};

}  // namespace ntkfast
