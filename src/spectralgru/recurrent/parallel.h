// Work in equal parts, done by whichever of PyTorch's own threads is free (threads.py).

#pragma once

#include <atomic>

// GOMP_parallel of GNU's OpenMP: call `run(data)` in so many threads and wait for them; null: there is none.
struct Pool {
    void (*parallel)(void (*run)(void *), void *data, unsigned threads, unsigned flags);
    unsigned threads;
};

// work(part) for all parts, in any order.
template <class Work> static void divide(const Pool &pool, long parts, Work work) {
    struct Shared {
        Work &work;
        long parts;
        std::atomic<long> next;
    } shared{work, parts, {0}};
    auto run = [](void *data) {
        auto &own = *static_cast<Shared *>(data);
        for (long part; (part = own.next++) < own.parts;) own.work(part);
    };
    if (pool.parallel && pool.threads > 1 && parts > 1)
        pool.parallel(run, &shared, pool.threads, 0);
    else
        run(&shared);
}
