/* Members that are laid out in every odd way, and a variable in whose file they are known. */
#include <stdint.h>

typedef const volatile uint32_t number_t;
typedef number_t row_t[3];

union both_u {
	uint64_t whole;
	uint16_t part[4];
};

struct odd_s {
	uint8_t first;
	unsigned low : 3;
	unsigned high : 7;
	uint64_t far : 33;
	row_t rows[5];
	int16_t cube[2][3][4];
	struct {
		uint8_t inner;
		union {
			void *pointer;
			double real;
		};
	};
	struct {
		uint32_t given;
	} named;
	union both_u both[2];
	_Atomic uint64_t counter;
	__attribute__((aligned(64))) struct inner_s {
		uint8_t byte;
		struct odd_s *next;
	} lined[2];
	enum { ZERO, ONE } choice;
	void (*call)(int);
	long double wide;
	_Bool flag;
	uint8_t none[0];
	struct inner_s rest[];
};

struct empty_s {
};

__attribute__((used)) struct odd_s *odd_variable = 0;
__attribute__((used)) struct empty_s empty_variable;

int main(void) {
	return odd_variable != 0;
}
