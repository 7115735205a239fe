// Prints the sum of every pair of codes, that of a above that of b.
module add_all_pairs;
    parameter BITS = 6;
    parameter WORD_BITS = 5;
    parameter STEPS = 18;
    parameter HALVES = 4;
    parameter HAS_SB_TIES = 0;
    parameter HAS_DB_TIES = 0;
    parameter ODD_OFFSET = 0;
    parameter SATURATE_UNDERFLOW = 0;
    parameter STEM = "lns6f2";

    reg [BITS-1:0] a, b;
    wire [BITS-1:0] sum;
    integer pair;

    lns_add #(
        .BITS(BITS), .WORD_BITS(WORD_BITS), .STEPS(STEPS), .HALVES(HALVES),
        .SB({STEM, ".sb.mem"}), .DB({STEM, ".db.mem"}), .HALF({STEM, ".half.mem"}),
        .HAS_SB_TIES(HAS_SB_TIES), .HAS_DB_TIES(HAS_DB_TIES),
        .SB_TIE({STEM, ".sb_tie.mem"}), .DB_TIE({STEM, ".db_tie.mem"}),
        .ODD_OFFSET(ODD_OFFSET), .SATURATE_UNDERFLOW(SATURATE_UNDERFLOW)
    ) adder (.a(a), .b(b), .sum(sum));

    initial
        for (pair = 0; pair < 1 << (2 * BITS); pair = pair + 1) begin
            {a, b} = pair;
            #1 $display("%h", sum);
        end
endmodule
