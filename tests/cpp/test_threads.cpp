// Teams of threads are tested in both ways in which they are made: this file is built with OpenMP, where there is such,
// and without.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "checks.h"
#include "cpu/threads.h"

namespace {

using ntkfast::parallel;

void every_member_is_called_once(int threads) {
    std::vector<std::atomic<int>> calls(static_cast<std::size_t>(threads));
    std::atomic<int> teams{0};
    parallel(threads, [&](int thread, int team) {
        ++calls[std::size_t(thread)];
        teams += team;
    });
    int members = 0;
    for (const std::atomic<int>& count : calls) {
        check(count <= 1, "a member of a team is called once");
        members += count;
    }
    check(members >= 1 && teams == members * members, "all members know the size of their team");
}

void the_caller_is_member_zero() {
    const std::thread::id caller = std::this_thread::get_id();
    std::atomic<int> strangers{0};
    parallel(3, [&](int thread, int) {
        if ((std::this_thread::get_id() == caller) != (thread == 0)) ++strangers;
    });
    check(strangers == 0, "thread 0 is the caller");
}

void exceptions_come_back() {
    for (int thrower : {0, 1}) {
        std::atomic<int> ended{0};
        int size = 0;
        const auto call = [&] {
            parallel(2, [&](int thread, int team) {
                if (thread == 0) size = team;
                if (thread == thrower) throw std::runtime_error("from a thread");
                ++ended;
            });
        };
        const bool thrown = throws<std::runtime_error>(call);
        check(thrown == (thrower < size), "an exception of a thread is thrown by the call");
        check(ended == size - (thrower < size ? 1 : 0), "the other threads have ended before");
    }
}

void denormals_are_flushed() {
#if defined(__SSE__)
    std::atomic<int> kept{0};
    parallel(2, [&](int, int) {
        volatile float tiny = 1e-38f;
        if (tiny * 0.1f != 0.0f) ++kept;
    });
    check(kept == 0, "denormals count as zero in a team");
    volatile float tiny = 1e-38f;
    check(tiny * 0.1f != 0.0f, "denormals are numbers for the caller again");
#endif
}

}  // namespace

int main(int, char** arguments) {
    for (int threads : {1, 2, 5}) every_member_is_called_once(threads);
    the_caller_is_member_zero();
    exceptions_come_back();
    denormals_are_flushed();
    check(ntkfast::default_threads() >= 1, "there is a thread");
    const std::string name = arguments[0], by = ntkfast::threads_by();
    if (name.find("std_threads") != std::string::npos) {
        check(by == "std::thread", "without OpenMP, threads are the library's");
        setenv("OMP_NUM_THREADS", "3", 1);
        check(ntkfast::default_threads() == 3, "OMP_NUM_THREADS counts without OpenMP too");
        setenv("OMP_NUM_THREADS", "many", 1);
        check(ntkfast::default_threads() >= 1, "a value that is no number does not count");
    }
    std::printf("%d checks, %d failed (threads by %s)\n", checks, failures, by.c_str());
    return failures ? 1 : 0;
}
