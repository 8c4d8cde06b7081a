// Macros of windows.h, X11, Arduino and others before normkit's headers: these compile, and the macros are
// afterwards what they were.
#define near
#define far
#define small char
#define hyper __int64
#define pascal
#define cdecl
#define interface struct
#define IN
#define OUT
#define OPTIONAL
#define CONST const
#define VOID void
#define ERROR 0
#define DELETE 0x00010000L
#define NO_ERROR 0L
#define STRICT 1
#define TRUE 1
#define FALSE 0
#define ABSOLUTE 1
#define RELATIVE 2
#define TRANSPARENT 1
#define OPAQUE 2
#define Yield()
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))

#define Status int
#define Bool int
#define True 1
#define False 0
#define None 0L
#define Always 2
#define Success 0
#define Above 0
#define Below 1
#define Complex 0
#define Convex 2
#define Unsorted 0
#define GrayScale 1
#define KeyPress 2
#define Expose 12
#define ControlMask (1 << 2)

#define PI 3.1415926535897932384626433832795
#define HIGH 0x1
#define LOW 0x0
#define INPUT 0x0
#define OUTPUT 0x1
#define DEFAULT 1
#define EXTERNAL 0
#define sq(x) ((x) * (x))
#define round(x) ((x) >= 0 ? (long)((x) + 0.5) : (long)((x) - 0.5))
#define constrain(a, low, high) ((a) < (low) ? (low) : ((a) > (high) ? (high) : (a)))
#define bit(b) (1UL << (b))
#define lowByte(w) ((uint8_t)((w) & 0xff))
#define B0 0
#define B1 1
#define A0 14

#define check(assertion) ((void)(assertion))
#define verify(assertion) ((void)(assertion))
#define require(assertion, label) ((void)(assertion))
#define major(dev) (dev)
#define minor(dev) (dev)
#define CHECK(x) ((void)(x))

#include <normkit/exec_openmp.hpp>
#include <normkit/normkit.hpp>
#include <normkit/runtime.hpp>

#define NORMKIT_TEXT_(text) #text
#define NORMKIT_TEXT(text) NORMKIT_TEXT_(text)
static_assert(NORMKIT_TEXT(Status)[0] == 'i', "Status is X11's again");
static_assert(NORMKIT_TEXT(small)[0] == 'c' && None == 0, "macros stay");

int main() {
  return normkit::status_message({})[0] == 'o' ? 0 : 1;
}
