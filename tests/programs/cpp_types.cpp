/* Structs that nothing in them tells, held by objects with virtual functions and by variables.

   It lists all of them itself: "kind address" a line, to a file.  As many others of the same
   sizes are held by what has no type, and old pointers lie where vectors have shrunk. */

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace shop {
struct Door {
    long width;
    char rest[100];
};
struct Room {
    double size[6];
    Room *next;
};
struct Item {
    long price;
    std::unique_ptr<Door> door;
};
struct Named {
    virtual ~Named() {}
    std::string name;
};
union Either {
    Door *door;
    Room *room;
};
struct Order : Named {
    Room *room = nullptr;
    std::unique_ptr<Door> own;
    std::vector<Item> items;
    std::vector<Room *> rooms;
    std::map<int, long> prices;
    Door *many = nullptr;
    Either either = {nullptr};
    void *anything = nullptr;
    char *text = nullptr;
};
std::vector<Item> stock;
Room *hall;
} // namespace shop

namespace {
struct Hidden : shop::Named {
    shop::Door *door = nullptr;
};
shop::Door *volatile back;
} // namespace

typedef struct {
    long a[20];
} nameless;
static nameless *plain;
static std::vector<std::unique_ptr<shop::Named>> orders;
static void *untyped[400];

static FILE *out;

static void tell(const char *kind, const void *at) { fprintf(out, "%s\t%p\n", kind, at); }

static shop::Room *room() {
    auto *found = new shop::Room();
    found->next = new shop::Room();
    tell("C++ shop::Room", found);
    tell("C++ shop::Room", found->next);
    return found;
}

static shop::Door *door() {
    auto *found = new shop::Door();
    tell("C++ shop::Door", found);
    return found;
}

static std::vector<shop::Item> goods(int number) {
    std::vector<shop::Item> found;
    for (int i = 0; i < number; i++)
        found.push_back({i, std::unique_ptr<shop::Door>(door())});
    tell("elements of std::vector<shop::Item>", found.data());
    return found;
}

static shop::Order *order(int i) {
    auto *made = new shop::Order();
    tell("C++ shop::Order", made);
    made->name = std::string(40, 'n');
    tell("C++ shop::Order.name", made->name.data());
    made->room = room();
    made->own.reset(door());
    made->items = goods(i % 5 + 1);
    for (int n = 0; n < 3; n++)
        made->rooms.push_back(room());
    made->rooms.push_back(new shop::Room());
    tell("elements of std::vector<shop::Room*>", made->rooms.data());
    delete made->rooms.back();
    made->rooms.pop_back();
    untyped[2 * i] = calloc(1, sizeof(shop::Room));
    tell("?", untyped[2 * i]);
    made->prices[i] = 5;
    tell("part of std::map<int, long>", reinterpret_cast<char *>(&made->prices[i]) - 40);
    made->many = new shop::Door[7];
    tell("starts with C++ shop::Door", made->many);
    made->either.room = new shop::Room();
    tell("?", made->either.room);
    made->anything = calloc(1, 108);
    tell("?", made->anything);
    made->text = static_cast<char *>(calloc(1, 300));
    tell("C++ shop::Order.text", made->text);
    return made;
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 1;
    out = fopen(argv[1], "w");
    for (int i = 0; i < 200; i++) {
        orders.emplace_back(order(i));
        auto *hidden = new Hidden();
        hidden->door = door();
        tell("C++ (anonymous namespace)::Hidden", hidden);
        orders.emplace_back(hidden);
        untyped[2 * i + 1] = calloc(1, 56);
        tell("?", untyped[2 * i + 1]);
    }
    shop::stock = goods(50);
    shop::hall = room();
    back = door();
    plain = new nameless();
    tell("C++ nameless", plain);
    tell("elements of std::vector<std::unique_ptr<shop::Named>>", orders.data());
    fclose(out);
    printf("ready\n");
    fflush(stdout);
    char line[80];
    return fgets(line, sizeof line, stdin) == nullptr || plain == nullptr || !untyped[1];
}
