// Adds two numbers of one LNS format and one scale, to nearest: the codes of lnsnum.arithmetic.add.
//
//     m  =  m_hi + sb(z)  or, of unlike signs,  m_hi + db(z),      z = m_hi - m_lo
//
// A code is a sign bit and BITS - 1 bits of log magnitude m, biased; m = 0 is zero, or NaN where the sign is 1.
// The memories are those of `lnsnum export --tables FORMAT --to readmemh`; manifest.json says how long and wide they are.
module lns_add #(
    parameter BITS = 8,
    parameter WORD_BITS = 9,                // of sb, db and half
    parameter STEPS = 226,                  // words of sb, db and their ties
    parameter HALVES = 32,                  // words of half
    parameter SB = "lns8f5.sb.mem",
    parameter DB = "lns8f5.db.mem",
    parameter HALF = "lns8f5.half.mem",
    parameter HAS_SB_TIES = 0,              // only some bases other than 2 have ties
    parameter HAS_DB_TIES = 0,
    parameter SB_TIE = "",
    parameter DB_TIE = "",
    parameter ODD_OFFSET = 0,               // log_offset modulo 2: ties go to the even E = m - bias + log_offset
    parameter SATURATE_UNDERFLOW = 0        // 1 for underflow="saturate", which does without half
) (
    input  wire [BITS-1:0] a,
    input  wire [BITS-1:0] b,
    output wire [BITS-1:0] sum
);
    localparam WIDE = (BITS > WORD_BITS ? BITS : WORD_BITS) + 2;
    localparam [BITS-1:0] NAN = {1'b1, {(BITS - 1) {1'b0}}};
    localparam signed [WIDE-1:0] GREATEST = (1 << (BITS - 1)) - 1;

    reg signed [WORD_BITS-1:0] sb [0:STEPS-1];
    reg signed [WORD_BITS-1:0] db [0:STEPS-1];
    reg signed [WORD_BITS-1:0] half [0:HALVES-1];
    reg sb_tie [0:STEPS-1];
    reg db_tie [0:STEPS-1];

    initial begin
        $readmemh(SB, sb);
        $readmemh(DB, db);
        $readmemh(HALF, half);
        if (HAS_SB_TIES) $readmemh(SB_TIE, sb_tie);
        if (HAS_DB_TIES) $readmemh(DB_TIE, db_tie);
    end

    // The greater logarithm first. Zero, m = 0, is below all.
    wire [BITS-2:0] m_a = a[BITS-2:0];
    wire [BITS-2:0] m_b = b[BITS-2:0];
    wire a_first = m_a >= m_b;
    wire [BITS-2:0] m_hi = a_first ? m_a : m_b;
    wire [BITS-2:0] m_lo = a_first ? m_b : m_a;
    wire sign = a_first ? a[BITS-1] : b[BITS-1];
    wire subtracted = a[BITS-1] ^ b[BITS-1];
    wire [BITS-2:0] z = m_hi - m_lo;

    // The step, 0 beyond the tables.
    wire in_table = z < STEPS;
    wire signed [WORD_BITS-1:0] added = sb[z];
    wire signed [WORD_BITS-1:0] taken = db[z];
    wire tie = in_table && (subtracted ? HAS_DB_TIES && db_tie[z] : HAS_SB_TIES && sb_tie[z]);
    wire signed [WIDE-1:0] hi = {{(WIDE - BITS + 1) {1'b0}}, m_hi};
    wire signed [WIDE-1:0] moved = in_table ? (subtracted ? hi + taken : hi + added) : hi;
    wire round_up = tie && (moved[0] ^ (ODD_OFFSET != 0));
    wire signed [WIDE-1:0] m = round_up ? moved + 1 : moved;

    // What lies below half of the smallest number becomes zero, what else lies below it the smallest.
    wire signed [WORD_BITS-1:0] doubled = half[z];
    wire signed [WIDE-1:0] twice = hi + doubled;
    wire vanishes = subtracted && z < HALVES && !SATURATE_UNDERFLOW && twice < 1;
    wire signed [WIDE-1:0] clipped = m < 1 ? 1 : m > GREATEST ? GREATEST : m;

    assign sum = (a == NAN || b == NAN) ? NAN
               : m_lo == 0 ? {sign, m_hi}
               : subtracted && z == 0 ? {BITS{1'b0}}
               : vanishes ? {BITS{1'b0}}
               : {sign, clipped[BITS-2:0]};
endmodule
