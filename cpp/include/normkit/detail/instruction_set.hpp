// The instruction set is the one that the translation unit is compiled for, and is part of every name.
//
// NORMKIT_ISA, the namespace of everything inline, is the kind of vectors and one digit for every four flags
// that let the compiler emit other instructions: avx2_f600..., baseline_0000.... Where the linker keeps one
// of several copies of a function, all of them were compiled for the same processor (though maybe with
// different optimization). The compiled library's units have names of their own, which no other unit shares.
#ifndef NORMKIT_DETAIL_INSTRUCTION_SET_HPP_
#define NORMKIT_DETAIL_INSTRUCTION_SET_HPP_

#define NORMKIT_JOIN2_(a, b) a##b
#define NORMKIT_JOIN4_(a, b, c, d) a##b##c##d
#define NORMKIT_JOIN5_(a, b, c, d, e) a##b##c##d##e
#define NORMKIT_JOIN6_(a, b, c, d, e, f) a##b##c##d##e##f
#define NORMKIT_JOIN2(a, b) NORMKIT_JOIN2_(a, b)
#define NORMKIT_JOIN4(a, b, c, d) NORMKIT_JOIN4_(a, b, c, d)
#define NORMKIT_JOIN5(a, b, c, d, e) NORMKIT_JOIN5_(a, b, c, d, e)
#define NORMKIT_JOIN6(a, b, c, d, e, f) NORMKIT_JOIN6_(a, b, c, d, e, f)

// 1 for a macro that is defined as 1, else 0; four such bits as one digit.
#define NORMKIT_SECOND_(a, b, ...) b
#define NORMKIT_SECOND(...) NORMKIT_SECOND_(__VA_ARGS__)
#define NORMKIT_PAIR_1 ~, 1
#define NORMKIT_BIT_(value) NORMKIT_SECOND(NORMKIT_PAIR_##value, 0, ~)
#define NORMKIT_BIT(macro) NORMKIT_BIT_(macro)
#define NORMKIT_HEX_0000 0
#define NORMKIT_HEX_0001 1
#define NORMKIT_HEX_0010 2
#define NORMKIT_HEX_0011 3
#define NORMKIT_HEX_0100 4
#define NORMKIT_HEX_0101 5
#define NORMKIT_HEX_0110 6
#define NORMKIT_HEX_0111 7
#define NORMKIT_HEX_1000 8
#define NORMKIT_HEX_1001 9
#define NORMKIT_HEX_1010 a
#define NORMKIT_HEX_1011 b
#define NORMKIT_HEX_1100 c
#define NORMKIT_HEX_1101 d
#define NORMKIT_HEX_1110 e
#define NORMKIT_HEX_1111 f
#define NORMKIT_DIGIT(a, b, c, d) \
  NORMKIT_JOIN5(NORMKIT_HEX_, NORMKIT_BIT(a), NORMKIT_BIT(b), NORMKIT_BIT(c), NORMKIT_BIT(d))

// Vectors are the compiler's generic ones of NORMKIT_VECTOR_BYTES, lowered to what the target has; 0:
// scalars. 32-bit ARM takes scalars: NEON and MVE flush subnormals there, and GCC 12 compiles selections for
// MVE wrongly. So does big-endian AArch64, where lanes of intrinsics and of memory are in opposite order.
#if defined(__CUDACC__)
#  define NORMKIT_ISA_KIND device
#  define NORMKIT_VECTOR_BYTES 0
#elif defined(NORMKIT_FORCE_SCALAR) || defined(__arm__) || defined(__AARCH64EB__) || \
    !(defined(__GNUC__) || defined(__clang__))
#  define NORMKIT_ISA_KIND scalar
#  define NORMKIT_VECTOR_BYTES 0
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && \
    defined(__F16C__)
#  define NORMKIT_ISA_KIND avx512
#  define NORMKIT_VECTOR_BYTES 64
#elif defined(__AVX2__) && defined(__F16C__)
#  define NORMKIT_ISA_KIND avx2
#  define NORMKIT_VECTOR_BYTES 32
#elif defined(__ARM_NEON) && defined(__aarch64__)
#  define NORMKIT_ISA_KIND neon
#  define NORMKIT_VECTOR_BYTES 16
#else
#  define NORMKIT_ISA_KIND baseline
#  define NORMKIT_VECTOR_BYTES 16
#endif

// Of flags that no compiler uses unasked (AMX, key locker, ...) nothing is said.
#if defined(__x86_64__) || defined(__i386__)
#  define NORMKIT_ISA_SSE                                                     \
    NORMKIT_JOIN2(NORMKIT_DIGIT(__SSE3__, __SSSE3__, __SSE4_1__, __SSE4_2__), \
                  NORMKIT_DIGIT(__AVX__, __AVX2__, __FMA__, __F16C__))
#  define NORMKIT_ISA_INTEGER                                                  \
    NORMKIT_JOIN4(NORMKIT_DIGIT(__BMI__, __BMI2__, __LZCNT__, __POPCNT__),     \
                  NORMKIT_DIGIT(__MOVBE__, __ADX__, __FMA4__, __XOP__),        \
                  NORMKIT_DIGIT(__TBM__, __SSE4A__, __LAHF_SAHF__, __CRC32__), \
                  NORMKIT_DIGIT(__AES__, __PCLMUL__, __SHA__, __GFNI__))
#  define NORMKIT_ISA_AVX512                                                                            \
    NORMKIT_JOIN5(NORMKIT_DIGIT(__AVX512F__, __AVX512CD__, __AVX512BW__, __AVX512DQ__),                 \
                  NORMKIT_DIGIT(__AVX512VL__, __AVX512VBMI__, __AVX512VBMI2__, __AVX512VNNI__),         \
                  NORMKIT_DIGIT(__AVX512BITALG__, __AVX512VPOPCNTDQ__, __AVX512IFMA__, __AVX512BF16__), \
                  NORMKIT_DIGIT(__AVX512FP16__, __AVX512ER__, __VAES__, __VPCLMULQDQ__),                \
                  NORMKIT_DIGIT(__AVXVNNI__, __AVXIFMA__, __AVXVNNIINT8__, __AVXVNNIINT16__))
#  define NORMKIT_ISA_LATER                                                     \
    NORMKIT_JOIN4(NORMKIT_DIGIT(__AVX10_1__, __AVX10_2__, __APX_F__, __EGPR__), \
                  NORMKIT_DIGIT(__NDD__, __PUSH2POP2__, __PPX__, __CCMP__),     \
                  NORMKIT_DIGIT(__NF__, __ZU__, __CF__, __CMPCCXADD__),         \
                  NORMKIT_DIGIT(__PRFCHW__, __3dNOW__, __MOVDIRI__, __GCC_HAVE_SYNC_COMPARE_AND_SWAP_16))
#  define NORMKIT_ISA_FLAGS \
    NORMKIT_JOIN5(_, NORMKIT_ISA_SSE, NORMKIT_ISA_INTEGER, NORMKIT_ISA_AVX512, NORMKIT_ISA_LATER)
#elif defined(__aarch64__)
#  define NORMKIT_ISA_FLAGS                                                                               \
    NORMKIT_JOIN6(                                                                                        \
        _, NORMKIT_DIGIT(__ARM_FEATURE_SVE, __ARM_FEATURE_SVE2, __ARM_FEATURE_SVE2p1, __ARM_FEATURE_SME), \
        NORMKIT_DIGIT(__ARM_FEATURE_ATOMICS, __ARM_FEATURE_DOTPROD, __ARM_FEATURE_MATMUL_INT8,            \
                      __ARM_FEATURE_BF16),                                                                \
        NORMKIT_DIGIT(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC, __ARM_FEATURE_FP16_FML, __ARM_FEATURE_FRINT,  \
                      __ARM_FEATURE_JCVT),                                                                \
        NORMKIT_DIGIT(__ARM_FEATURE_CRC32, __ARM_FEATURE_AES, __ARM_FEATURE_SHA3, __ARM_FEATURE_COMPLEX), \
        NORMKIT_DIGIT(__ARM_FEATURE_MOPS, __ARM_FEATURE_CSSC, __ARM_FEATURE_RCPC, __ARM_FEATURE_PAUTH))
#elif defined(__arm__)
#  if defined(__ARM_FP)
#    define NORMKIT_ISA_FPU __ARM_FP
#  else
#    define NORMKIT_ISA_FPU 0
#  endif
#  if defined(__ARM_FEATURE_MVE)
#    define NORMKIT_ISA_MVE 1
#  else
#    define NORMKIT_ISA_MVE 0
#  endif
#  define NORMKIT_ISA_FLAGS                                                                                \
    NORMKIT_JOIN6(                                                                                         \
        NORMKIT_JOIN4(_, __ARM_ARCH, _, NORMKIT_ISA_FPU), _,                                               \
        NORMKIT_DIGIT(__thumb__, __thumb2__, __ARM_NEON, NORMKIT_ISA_MVE),                                 \
        NORMKIT_DIGIT(__ARM_FEATURE_FMA, __ARM_ARCH_EXT_IDIV__, __ARM_FEATURE_DSP, __ARM_FEATURE_SIMD32),  \
        NORMKIT_DIGIT(__ARM_FEATURE_UNALIGNED, __ARM_FEATURE_CRC32, __ARM_FEATURE_CLZ, __ARM_FEATURE_SAT), \
        NORMKIT_DIGIT(__ARM_FEATURE_DOTPROD, __ARM_FEATURE_FP16_SCALAR_ARITHMETIC,                         \
                      __ARM_FEATURE_FP16_VECTOR_ARITHMETIC, __ARM_PCS_VFP))
#elif defined(__riscv)
// Versions, such as 1000000, or the name itself.
#  define NORMKIT_ISA_FLAGS                                                                 \
    NORMKIT_JOIN4(NORMKIT_JOIN4(_, __riscv_c, __riscv_f, __riscv_d),                        \
                  NORMKIT_JOIN4(__riscv_v, __riscv_zve32f, __riscv_zve64d, __riscv_zicond), \
                  NORMKIT_JOIN4(__riscv_zba, __riscv_zbb, __riscv_zbc, __riscv_zbs),        \
                  NORMKIT_JOIN4(__riscv_zfa, __riscv_zfh, __riscv_zcb, __riscv_a))
#elif defined(__powerpc__)
#  define NORMKIT_ISA_FLAGS                                                       \
    NORMKIT_JOIN4(_, NORMKIT_DIGIT(__ALTIVEC__, __VSX__, _ARCH_PWR5, _ARCH_PWR6), \
                  NORMKIT_DIGIT(_ARCH_PWR7, _ARCH_PWR8, _ARCH_PWR9, _ARCH_PWR10), \
                  NORMKIT_DIGIT(_ARCH_PWR11, __FLOAT128_HARDWARE__, __MMA__, __HTM__))
#elif defined(__s390x__) && defined(__ARCH__)
#  define NORMKIT_ISA_FLAGS NORMKIT_JOIN4(_, __ARCH__, _, NORMKIT_DIGIT(__VX__, __HTM__, , ))
#elif defined(__mips__)
#  define NORMKIT_ISA_FLAGS                  \
    NORMKIT_JOIN4(_, __mips, __mips_isa_rev, \
                  NORMKIT_DIGIT(__mips_msa, __mips_dsp, __mips16, __mips_micromips))
#elif defined(__wasm__)
#  define NORMKIT_ISA_FLAGS                                                                                 \
    NORMKIT_JOIN4(                                                                                          \
        _, NORMKIT_DIGIT(__wasm_simd128__, __wasm_relaxed_simd__, __wasm_bulk_memory__, __wasm_sign_ext__), \
        NORMKIT_DIGIT(__wasm_nontrapping_fptoint__, __wasm_multivalue__, __wasm_tail_call__,                \
                      __wasm_extended_const__),                                                             \
        NORMKIT_DIGIT(__wasm_atomics__, __wasm_reference_types__, __wasm_multimemory__, __wasm_fp16__))
#elif defined(__loongarch__)
#  define NORMKIT_ISA_FLAGS \
    NORMKIT_JOIN2(_, NORMKIT_DIGIT(__loongarch_sx, __loongarch_asx, __loongarch_frecipe, __loongarch_lam_bh))
#else
#  define NORMKIT_ISA_FLAGS
#endif

// A device's code has one instruction set, the host's half of the same unit must have the same names.
#if defined(__CUDACC__) || (defined(_MSC_VER) && !defined(__clang__))
#  define NORMKIT_ISA NORMKIT_ISA_KIND
#elif defined(NORMKIT_LIBRARY_UNIT)
#  define NORMKIT_ISA NORMKIT_JOIN2(library_, NORMKIT_JOIN2(NORMKIT_ISA_KIND, NORMKIT_ISA_FLAGS))
#else
#  define NORMKIT_ISA NORMKIT_JOIN2(NORMKIT_ISA_KIND, NORMKIT_ISA_FLAGS)
#endif

#endif  // NORMKIT_DETAIL_INSTRUCTION_SET_HPP_
