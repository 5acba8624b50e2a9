// SPDX-License-Identifier: Apache-2.0
//
// Asks for all data of a run in Program order: first the Program itself, then, walking the Program ahead of execution, what
// each instruction reads (docs/machine.md, "The stream"). How far it runs ahead is the FIFOs' business: the readers take a
// descriptor only when the one before has been requested. At EXPERTS it waits until execution stands at that instruction
// (the queues are final then) and asks only for experts that have tokens.
module loader (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        flush_i,             // back to idle

  input  logic        start_i,
  input  logic [63:0] memory_base_i,
  input  logic [63:0] input_base_i,
  input  logic [31:0] program_addr_i,
  input  logic [15:0] num_instructions_i,  // > 0

  input  logic        program_loaded_i,    // the Program stands in the store
  output logic        req_o,
  output logic [15:0] index_o,
  input  logic        gnt_i,
  input  logic        valid_i,
  input  codesign_pkg::instr_t instr_i,

  input  logic        experts_i,           // execution stands at an EXPERTS instruction: exec_index_i
  input  logic [15:0] exec_index_i,
  input  logic [codesign_pkg::MaxExperts-1:0][15:0] counts_i,

  output logic [63:0] desc_addr_o,
  output logic [31:0] desc_beats_o,
  output logic        memory_valid_o,      // to the reader of gmem0
  input  logic        memory_ready_i,
  output logic        input_valid_o,       // to the reader of gmem1
  input  logic        input_ready_i
);
  localparam int unsigned ExpertBits = (codesign_pkg::MaxExperts > 1) ? $clog2(codesign_pkg::MaxExperts) : 1;

  typedef enum logic [3:0] {
    StIdle,
    StProgram,   // descriptor of the Program
    StLoaded,    // wait until it is stored
    StRequest,   // ask for an instruction
    StFetch,     // wait for it
    StDecode,
    StAddress,   // base + offset
    StDescribe,  // descriptor on the wires
    StExperts,   // wait for the queues
    StExpert,    // this expert has tokens?
    StNext
  } state_t;

  state_t      state_q;
  logic [15:0] index_q;
  logic [3:0]  opcode_q;
  logic        input_q;                    // LOAD from the input buffer
  logic [31:0] mem_addr_q, beats_q;
  logic [7:0]  expert_q, num_experts_q;
  logic [63:0] desc_addr_q;
  logic        accepted, last, wanted;

  assign req_o          = state_q == StRequest;
  assign index_o        = index_q;
  assign desc_addr_o    = desc_addr_q;
  assign desc_beats_o   = beats_q;
  assign memory_valid_o = (state_q == StDescribe) && !input_q;
  assign input_valid_o  = (state_q == StDescribe) && input_q;
  assign accepted       = input_q ? input_ready_i : memory_ready_i;
  assign last           = index_q == num_instructions_i - 16'd1;
  assign wanted         = counts_i[expert_q[ExpertBits-1:0]] != 0;

  always_ff @(posedge clk_i) begin
    if (!rst_ni || flush_i) begin
      state_q <= StIdle;
    end else begin
      unique case (state_q)
        StIdle:    if (start_i) state_q <= StProgram;
        StProgram: state_q <= StAddress;
        StLoaded:  if (program_loaded_i) state_q <= StRequest;
        StRequest: if (gnt_i) state_q <= StFetch;
        StFetch:   if (valid_i) state_q <= StDecode;
        StDecode:
          unique case (opcode_q)
            codesign_pkg::OpLoad, codesign_pkg::OpLinear, codesign_pkg::OpNorm, codesign_pkg::OpRoute: state_q <= StAddress;
            codesign_pkg::OpExperts:                          state_q <= StExperts;
            codesign_pkg::OpStore, codesign_pkg::OpAttention: state_q <= StNext;
            default:                                          state_q <= StIdle;   // execution will stop there
          endcase
        StAddress:  state_q <= StDescribe;
        StDescribe:
          if (accepted) begin
            unique case (opcode_q)
              4'd0:                    state_q <= StLoaded;   // the Program's own descriptor
              codesign_pkg::OpExperts: state_q <= StExpert;
              default:                 state_q <= StNext;
            endcase
          end
        StExperts: if (exec_index_i > index_q || (experts_i && exec_index_i == index_q)) state_q <= StExpert;
        StExpert:
          if (expert_q == num_experts_q) state_q <= StNext;
          else if (wanted)               state_q <= StAddress;
        StNext:  state_q <= last ? StIdle : StRequest;
        default: state_q <= StIdle;
      endcase
    end
  end

  always_ff @(posedge clk_i) begin
    unique case (state_q)
      StIdle: begin
        index_q    <= 16'd0;
        opcode_q   <= 4'd0;
        input_q    <= 1'b0;
        mem_addr_q <= program_addr_i;
        beats_q    <= 32'(num_instructions_i) * 32'(codesign_pkg::InstructionBeats);
      end
      StFetch: begin
        opcode_q      <= instr_i.opcode;
        input_q       <= (instr_i.opcode == codesign_pkg::OpLoad) && (instr_i.space != codesign_pkg::SpaceMemory);
        mem_addr_q    <= instr_i.mem_addr;
        beats_q       <= instr_i.beats;
        num_experts_q <= instr_i.num_experts;
        expert_q      <= 8'd0;
      end
      StAddress: desc_addr_q <= (input_q ? input_base_i : memory_base_i) + {28'd0, mem_addr_q, 4'd0};
      StExpert:
        if (expert_q != num_experts_q && !wanted) begin
          expert_q   <= expert_q + 8'd1;
          mem_addr_q <= mem_addr_q + beats_q;
        end
      StDescribe:
        if (accepted && opcode_q == codesign_pkg::OpExperts) begin
          expert_q   <= expert_q + 8'd1;
          mem_addr_q <= mem_addr_q + beats_q;
        end
      StNext:  index_q <= index_q + 16'd1;
      default: ;
    endcase
  end

  logic unused_instr;
  assign unused_instr = ^{instr_i, expert_q};
endmodule
