/* Objects of several classes, which it lists itself: "kind address" a line, to a file.

   Sessions, requests and buffers are made in bursts; then all requests and buffers of even
   number are deleted, so that their tables stay in freed regions.  Told to, it deletes all
   sessions. */

#include <cstdio>
#include <cstring>
#include <list>
#include <memory>
#include <string>
#include <typeinfo>
#include <vector>

namespace shop {
struct Named {
    virtual ~Named() {}
    std::string name;
};
struct Counted {
    virtual ~Counted() {}
    virtual long count() const { return n; }
    long n = 7;
};
struct Plain {
    double values[11];
    Plain *next;
};
struct Session : Named {
    explicit Session(int i) : number(i), plain(new Plain()) { name = "s"; }
    ~Session() override { delete plain; }
    int number;
    Plain *plain;
    char room[150];
};
struct Request : Counted, Named {
    char room[90];
};
template <typename Item> struct Buffer : virtual Named {
    std::vector<Item> items;
};
struct Element {
    virtual ~Element() {}
    long value = 3;
};
} // namespace shop

namespace {
struct Hidden : shop::Counted {
    char room[40];
};
} // namespace

static FILE *out;

static void tell(const char *kind, const void *at) { fprintf(out, "%s\t%p\n", kind, at); }

int main(int argc, char **argv) {
    struct Local : shop::Element {
        char room[70];
    };
    if (argc != 2)
        return 1;
    std::vector<std::unique_ptr<shop::Named>> kept;
    std::vector<shop::Named *> dropped;
    std::vector<std::shared_ptr<shop::Element>> shared;
    std::list<shop::Element> nodes;
    out = fopen(argv[1], "w");
    for (int burst = 0; burst < 25; burst++) {
        for (int i = 0; i < 100; i++)
            kept.emplace_back(new shop::Session(i));
        for (int i = 0; i < 100; i++) {
            kept.emplace_back(new shop::Request());
            dropped.push_back(new shop::Request());
        }
        for (int i = 0; i < 100; i++) {
            kept.emplace_back(new shop::Buffer<int>());
            dropped.push_back(new shop::Buffer<double>());
        }
    }
    for (auto &each : kept) {
        const void *at = dynamic_cast<const void *>(each.get());
        const auto &type = typeid(*each);
        if (type == typeid(shop::Session)) {
            tell("C++ shop::Session", at);
            tell("held by C++ shop::Session", static_cast<shop::Session *>(each.get())->plain);
        } else {
            tell(type == typeid(shop::Request) ? "C++ shop::Request" : "C++ shop::Buffer<int>", at);
        }
    }
    for (auto each : dropped) {
        const void *at = dynamic_cast<const void *>(each);
        delete each;
        tell("freed", at);
    }
    for (int i = 0; i < 200; i++) {
        shared.push_back(std::make_shared<shop::Element>());
        tell("C++ shop::Element (shared)", reinterpret_cast<const char *>(shared.back().get()) - 16);
        nodes.emplace_back();
        tell("struct with a C++ shop::Element", reinterpret_cast<const char *>(&nodes.back()) - 16);
        auto *array = new shop::Element[5];
        tell("C++ shop::Element[]", reinterpret_cast<const char *>(array) - 8);
        tell("C++ (anonymous namespace)::Hidden", new Hidden());
        tell("C++ main::Local", new Local());
    }
    fclose(out);
    printf("ready\n");
    fflush(stdout);
    char line[80];
    if (fgets(line, sizeof line, stdin) == nullptr)
        return 0;
    for (auto &each : kept)
        if (typeid(*each) == typeid(shop::Session))
            each.reset();
    printf("dropped\n");
    fflush(stdout);
    return fgets(line, sizeof line, stdin) == nullptr;
}
