/*
 * Objects of three classes, made in bursts; then all requests and events are deleted, and the
 * sessions stay.  It prints "ready", and on a line of input deletes the sessions, too.  How many
 * slabs there are, in thread caches nothing, it says before and after:
 *
 *     slabs NUMBER
 *
 * Where it is given a file, it dumps its heap profile to it while the sessions are there.
 */
#include <cstdio>
#include <string>
#include <vector>

#include <jemalloc/jemalloc.h>

namespace shop {
struct Item {
    virtual ~Item() {}
    long number = 1;
};
struct Session : Item {
    std::string user = std::string(60, 's');
    char room[120];
};
struct Request : Item {
    std::string path = std::string(60, 'r');
    char room[120];
};
struct Event : Item {
    std::vector<int> values = std::vector<int>(16);
    char room[120];
};
} // namespace shop

static std::vector<shop::Item *> kept, others;

template <typename Made> static void burst(std::vector<shop::Item *> &into) {
    for (int i = 0; i < 150; i++) {
        into.push_back(new Made());
    }
}

static size_t number(const char *name) {
    size_t value = 0, size = sizeof value;
    unsigned small = 0;
    size_t small_size = sizeof small;
    if (mallctl(name, &value, &size, NULL, 0) != 0) {
        mallctl(name, &small, &small_size, NULL, 0);
        value = small;
    }
    return value;
}

static void say() {
    unsigned long epoch = 1;
    size_t size = sizeof epoch, slabs = 0;
    mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
    mallctl("epoch", &epoch, &size, &epoch, size);
    for (size_t bin = 0; bin < number("arenas.nbins"); bin++) {
        char name[80];
        snprintf(name, sizeof name, "stats.arenas.4096.bins.%zu.curslabs", bin);
        slabs += number(name);
    }
    printf("slabs %zu\n", slabs);
    fflush(stdout);
}

static void drop(std::vector<shop::Item *> &some) {
    for (shop::Item *&each : some) {
        delete each;
        each = nullptr;
    }
}

int main(int argc, char **argv) {
    for (int round = 0; round < 100; round++) {
        burst<shop::Session>(kept);
        burst<shop::Request>(others);
        burst<shop::Event>(others);
    }
    drop(others);
    say();
    if (argc > 1) {
        mallctl("prof.dump", NULL, NULL, &argv[1], sizeof argv[1]);
    }
    puts("ready");
    fflush(stdout);
    getchar();
    drop(kept);
    say();
    getchar();
}
